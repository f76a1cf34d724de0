/*
 * position.c: how far the source may forget. A queue of transactions.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "position.h"
#include "source.h"

struct FwdTransaction
{
	uint64_t end_lsn; /* 0 until the commit has arrived */
	int64_t committed_us;
	size_t pending;
	FwdTransaction *newer;
};

static void
count_delay(FwdPositions *positions, int64_t committed_us)
{
	static const int bounds[FWD_DELAY_COUNT] = FWD_DELAYS;
	int64_t delay = fwd_now_us() - committed_us;
	int i = 0;

	while (i < FWD_DELAY_COUNT && delay > (int64_t) bounds[i] * 1000)
		i++;
	positions->delayed[i]++;
	positions->delay_us += delay;
}

static void
advance(FwdPositions *positions)
{
	FwdTransaction *oldest;

	while ((oldest = positions->oldest) != NULL && oldest->end_lsn != 0 && oldest->pending == 0)
	{
		if (oldest->end_lsn > positions->confirmed)
			positions->confirmed = oldest->end_lsn;
		if (oldest->committed_us != 0)
			count_delay(positions, oldest->committed_us);
		positions->oldest = oldest->newer;
		if (positions->oldest == NULL)
			positions->newest = NULL;
		positions->count--;
		free(oldest);
	}
}

void
fwd_positions_begin(FwdPositions *positions, int64_t committed_us)
{
	FwdTransaction *transaction = fwd_alloc(sizeof(FwdTransaction));

	transaction->committed_us = committed_us;
	if (positions->newest != NULL)
		positions->newest->newer = transaction;
	else
		positions->oldest = transaction;
	positions->newest = transaction;
	positions->open = true;
	positions->count++;
}

void
fwd_positions_commit(FwdPositions *positions, uint64_t end_lsn)
{
	if (!positions->open)
		return;
	positions->newest->end_lsn = end_lsn;
	positions->open = positions->whole = false;
	if (end_lsn > positions->received)
		positions->received = end_lsn;
	advance(positions);
}

void
fwd_positions_received(FwdPositions *positions, uint64_t lsn)
{
	if (!positions->open && lsn > positions->received)
		positions->received = lsn;
}

void
fwd_positions_idle(FwdPositions *positions, uint64_t lsn)
{
	fwd_positions_received(positions, lsn);
	if (positions->oldest == NULL && lsn > positions->confirmed)
		positions->confirmed = lsn;
}

FwdTransaction *
fwd_positions_sent(FwdPositions *positions)
{
	if (!positions->open)
		return NULL;
	positions->newest->pending++;
	return positions->newest;
}

void
fwd_positions_acknowledged(FwdPositions *positions, FwdTransaction *transaction)
{
	if (transaction == NULL)
		return;
	transaction->pending--;
	if (transaction == positions->oldest)
		advance(positions);
}

void
fwd_positions_rewind(FwdPositions *positions)
{
	while (positions->oldest != NULL)
	{
		FwdTransaction *next = positions->oldest->newer;

		free(positions->oldest);
		positions->oldest = next;
	}
	positions->newest = NULL;
	positions->open = positions->whole = false;
	positions->count = 0;
	positions->received = positions->confirmed;
}

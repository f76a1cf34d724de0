/*
 * position.c: how far the source may forget. A queue of transactions.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "position.h"

struct FwdTransaction
{
	uint64_t end_lsn; /* 0 until the commit has arrived */
	size_t pending;
	FwdTransaction *newer;
};

static void
advance(FwdPositions *positions)
{
	FwdTransaction *oldest;

	while ((oldest = positions->oldest) != NULL && oldest->end_lsn != 0 && oldest->pending == 0)
	{
		if (oldest->end_lsn > positions->confirmed)
			positions->confirmed = oldest->end_lsn;
		positions->oldest = oldest->newer;
		if (positions->oldest == NULL)
			positions->newest = NULL;
		positions->count--;
		free(oldest);
	}
}

void
fwd_positions_begin(FwdPositions *positions)
{
	FwdTransaction *transaction = fwd_alloc(sizeof(FwdTransaction));

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

/*
 * position.h: how far the source may forget.
 *
 * Transactions stand in the order of their commits, each with the number of its records
 * that no broker has acknowledged. What may be confirmed is the end of the newest one such
 * that it and all older ones are complete: never the position received, never a position
 * within a transaction. While nothing is pending, a position that the server names between
 * transactions may be confirmed too, and has to be: otherwise WAL piles up behind a slot
 * whose tables are quiet, and the server's fast shutdown waits for ever.
 */
#ifndef FWD_POSITION_H
#define FWD_POSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct FwdTransaction FwdTransaction;

/* Upper bounds of how long transactions take from their commit to the acknowledgement, in ms. */
#define FWD_DELAYS                                            \
	{                                                         \
		1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 30000 \
	}
#define FWD_DELAY_COUNT 12

typedef struct FwdPositions
{
	FwdTransaction *oldest;
	FwdTransaction *newest; /* the one that is open, if open */
	bool open;
	bool whole;							   /* the open one must not be split */
	size_t count;						   /* transactions that cannot be confirmed yet */
	uint64_t confirmed;					   /* may be told to the server */
	uint64_t received;					   /* everything before it has arrived */
	uint64_t delayed[FWD_DELAY_COUNT + 1]; /* transactions by their delay; the last: longer */
	int64_t delay_us;					   /* of all of them together */
} FwdPositions;

/* Committed when, in Unix microseconds; 0: its delay is of no interest. */
extern void fwd_positions_begin(FwdPositions *positions, int64_t committed_us);
extern void fwd_positions_commit(FwdPositions *positions, uint64_t end_lsn);
/* The server says that everything before this has been sent: it has arrived. */
extern void fwd_positions_received(FwdPositions *positions, uint64_t lsn);
/* The same, and it may be forgotten if nothing is pending. */
extern void fwd_positions_idle(FwdPositions *positions, uint64_t lsn);

/* A record of the open transaction is on its way; hand the result back when it arrived. */
extern FwdTransaction *fwd_positions_sent(FwdPositions *positions);
extern void fwd_positions_acknowledged(FwdPositions *positions, FwdTransaction *transaction);

/* Forget all transactions: they will come again. */
extern void fwd_positions_rewind(FwdPositions *positions);

#endif

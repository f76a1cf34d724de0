/*
 * pgt_progress.h: how far refreshes are that compute everything. Module: base
 *
 * Whoever runs a refresh says so before and after; the door to SPI (spi.c) tells
 * what statements without change sets give. What other sessions see is a copy
 * in shared memory; without shared_preload_libraries there is none.
 */
#ifndef PGT_PROGRESS_H
#define PGT_PROGRESS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "tcop/dest.h"

typedef enum PgtProgressPhase
{
	PGT_PROGRESS_COMPUTING, /* a statement gives rows */
	PGT_PROGRESS_WRITING	/* they are compared with what is stored, and written */
} PgtProgressPhase;

typedef struct PgtProgress
{
	int pid; /* 0: none */
	Oid database;
	int64 pgt_id;
	Oid relid;
	Oid owner;
	NameData schema; /* others may not see the table in the catalog yet */
	NameData name;
	char initiated_by[16];
	PgtProgressPhase phase;
	int statement; /* 1, 2, ...: about one per stage */
	double expected;
	int64 rows;
	TimestampTz started_at; /* of the first statement */
	TimestampTz phase_since;
} PgtProgress;

extern void pgt_progress_init(void);

/*
 * Around a refresh; inner ones (of functions in its query) are not shown. An
 * error needs no end. find_relid gives the table, and is called only if
 * something is to be shown.
 */
extern void pgt_progress_begin(int64 pgt_id, const char *initiated_by, Oid (*find_relid)(int64));
extern void pgt_progress_end(void);

/* A statement that computes everything begins; false if nobody may know. */
extern bool pgt_progress_compute(double expected);
/* A receiver that counts rows on their way to dest; freed with its context. */
extern DestReceiver *pgt_progress_count(DestReceiver *dest);
extern void pgt_progress_computed(int64 rows);

/* Of all processes: PgtProgress. */
extern List *pgt_progress_list(void);

#endif /* PGT_PROGRESS_H */

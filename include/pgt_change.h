/*
 * pgt_change.h: the changes of one relation between two frontiers; what
 * capture gives and delta takes (the contract between two modules of one
 * rank, so it includes neither).
 *
 * A change set is a signed multiset in memory: each row is one image with a
 * weight of +1 (new image) or -1 (old image); an UPDATE is both. It is not
 * consolidated and has no order.
 */
#ifndef PGT_CHANGE_H
#define PGT_CHANGE_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#define PGT_WEIGHT_COLUMN "pgt_w" /* int4, always the first column */

typedef struct PgtChangeSet
{
	Oid relid;			   /* whose changes: base table, stream table or stage */
	TupleDesc desc;		   /* pgt_w, then the captured columns under their current names */
	AttrNumber *attnums;   /* of the captured columns in relid; [0] belongs to desc's column 2 */
	int ncolumns;		   /* captured columns; desc->natts - 1 */
	Tuplestorestate *rows; /* read with a new read pointer, or rescan first */
	int64 nrows;		   /* images in it */
	bool truncated;		   /* a TRUNCATE lies between: no delta, only FULL */
} PgtChangeSet;

#endif /* PGT_CHANGE_H */

/*
 * pgt_source.h: captured relations (pgt_sources) and their buffers.
 */
#ifndef PGT_SOURCE_H
#define PGT_SOURCE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#define PGT_SEGMENTS 2

typedef struct PgtSource
{
	int64		source_id;
	Oid			relid;			/* root of the partition or inheritance tree */
	int			active_segment; /* which segment writers append to */
	Oid			segments[PGT_SEGMENTS]; /* relations pgtrickle_changes.buffer_<id>_<n> */
} PgtSource;

/* NULL if the relation is not captured. */
extern PgtSource *pgt_source_find(Oid relid);
extern PgtSource *pgt_source_find_id(int64 source_id);
extern PgtSource *pgt_source_create(Oid relid); /* catalog row only */
extern void pgt_source_delete(int64 source_id);
extern void pgt_source_set_segment(int64 source_id, int segment);
extern List *pgt_source_list(void);
extern char *pgt_source_buffer_name(int64 source_id, int segment);	/* unqualified */

#endif							/* PGT_SOURCE_H */

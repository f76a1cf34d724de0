/*
 * pgt_source.h: captured relations (pgt_sources) and their buffers.
 */
#ifndef PGT_SOURCE_H
#define PGT_SOURCE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#define PGT_SEGMENTS 2

/* Who writes the changes down. */
typedef enum PgtCaptureMethod
{
	PGT_CAPTURE_STATEMENT, /* statement triggers; a row trigger in replica role */
	PGT_CAPTURE_ROW,	   /* row triggers: the relation has a parent, whose statements
								 * change it without firing its statement triggers */
	PGT_CAPTURE_REFRESH	   /* the refresh of the stream table that it is */
} PgtCaptureMethod;

typedef struct PgtSource
{
	int64 source_id;
	Oid relid; /* root of the partition or inheritance tree */
	PgtCaptureMethod method;
	int active_segment;			/* which segment writers append to */
	Oid segments[PGT_SEGMENTS]; /* relations pgtrickle_changes.buffer_<id>_<n>;
										 * InvalidOid if missing */
	List *members;				/* OIDs in order: of the tree as triggers were installed on it */
} PgtSource;

/*
 * Reading needs no rights and no SPI (triggers of any user do it); it sees
 * what is committed and what this transaction did in earlier commands.
 */

/* NULL if the relation is not captured. */
extern PgtSource *pgt_source_find(Oid relid);
extern PgtSource *pgt_source_find_id(int64 source_id);
extern List *pgt_source_list(void);

/* Writing: as the extension's owner. */
extern PgtSource *pgt_source_create(Oid relid, PgtCaptureMethod method); /* catalog row only */
extern void pgt_source_delete(int64 source_id);
extern void pgt_source_set_segment(int64 source_id, int segment);
extern void pgt_source_set_members(int64 source_id, PgtCaptureMethod method, List *members);

extern char *pgt_source_buffer_name(int64 source_id, int segment); /* unqualified */

#endif /* PGT_SOURCE_H */

/*
 * pgt_dependency.h: which relations a stream table reads (pgt_dependencies).
 */
#ifndef PGT_DEPENDENCY_H
#define PGT_DEPENDENCY_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"

typedef struct PgtDependency
{
	int64 pgt_id;
	Oid relid;
	const char *type;	/* TABLE STREAM_TABLE VIEW MATVIEW FOREIGN_TABLE */
	Bitmapset *columns; /* attribute numbers used, 1-based (no system columns) */
} PgtDependency;

extern void pgt_dependency_replace(int64 pgt_id, List *dependencies);
extern List *pgt_dependency_list(int64 pgt_id); /* of PgtDependency, by relid */
extern List *pgt_dependency_list_all(void);
/* pgt_ids (as palloc'd int64 *) of the stream tables that read the relation. */
extern List *pgt_dependency_consumers(Oid relid);
/* Attribute numbers that any of them uses. */
extern Bitmapset *pgt_dependency_columns(Oid relid);

#endif /* PGT_DEPENDENCY_H */

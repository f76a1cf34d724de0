/*
 * pgt_stream_table.h: the catalog row of a stream table (pgt_definitions).
 */
#ifndef PGT_STREAM_TABLE_H
#define PGT_STREAM_TABLE_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef enum PgtRefreshMode
{
	PGT_MODE_AUTO,
	PGT_MODE_DIFFERENTIAL,
	PGT_MODE_FULL
} PgtRefreshMode;

typedef struct PgtStreamTable
{
	int64 pgt_id;
	Oid relid;		/* the user's table */
	Oid view_relid; /* hidden view that holds the definition */
	char *original_query;
	char *schedule; /* NULL: calculated */
	PgtRefreshMode mode;
	char *diamond_consistency;
	char *identity; /* "full" or "key" */
	bool paused;
	char *full_reason; /* NULL: can be maintained incrementally */
	int64 sla_ms;	   /* how old a change may be that it does not show; 0: as its schedule says */
	char *tier;		   /* set by the user; NULL: none */
	char *made_by;	   /* version whose analysis stages and captures follow; NULL: before 0.22.0 */
	char *publication; /* made for consumers downstream; NULL: none. It may be gone since */
} PgtStreamTable;

extern const char *pgt_refresh_mode_name(PgtRefreshMode mode);
/* Errors invalid_parameter_value; accepts any case. */
extern PgtRefreshMode pgt_refresh_mode_parse(const char *text);

/* For objects that carry the id in their names. */
extern int64 pgt_stream_table_next_id(void);
/* Inserts the row; takes the next pgt_id if it is 0, and returns it. */
extern int64 pgt_stream_table_create(PgtStreamTable *st);
/* Writes every field back. */
extern void pgt_stream_table_update(const PgtStreamTable *st);
/* NULL: none. Of its own, since statements about publications come without our locks. */
extern void pgt_stream_table_set_publication(int64 pgt_id, const char *name);
/* With its frontier and dependencies. */
extern void pgt_stream_table_delete(int64 pgt_id);
/* NULL if there is none. */
extern PgtStreamTable *pgt_stream_table_find(Oid relid);
extern PgtStreamTable *pgt_stream_table_find_id(int64 pgt_id);
/* Made by another version, as what comes out of a dump: stages may not be those of this one. */
extern bool pgt_stream_table_is_outdated(const PgtStreamTable *st);
/* InvalidOid if there is none. */
extern Oid pgt_stream_table_relid(int64 pgt_id);
/* By the name a user gave; errors undefined_table with a hint. */
extern PgtStreamTable *pgt_stream_table_get(const char *name);
extern List *pgt_stream_table_list(void); /* all, by pgt_id */
extern Oid pgt_stream_table_owner(const PgtStreamTable *st);
/*
 * Is a dump being restored? Definitions come with the rows, indexes and guards
 * of the tables after them; nothing may be made or refreshed in between.
 */
extern bool pgt_stream_table_any_unguarded(const List *stream_tables);
/* The statement trigger that refuses direct changes. */
#define PGT_GUARD_TRIGGER "pgt_guard"
/* For rows, enabled for replica roles only; pg_dump writes it before the other. */
#define PGT_APPLY_GUARD_TRIGGER "pgt_apply_guard"

#endif /* PGT_STREAM_TABLE_H */

/*
 * api_internal.h: what the files of worker/api share.
 */
#ifndef PGT_API_INTERNAL_H
#define PGT_API_INTERNAL_H

#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

#include "datatype/timestamp.h"

#include "pgt_delta.h"
#include "pgt_refresh.h"
#include "pgt_stream_table.h"

/* ---- query.c: the text that a user gave ---- */

/*
 * Parses and analyses the text with the caller's search_path and rights; errors
 * carry the position in it. Exactly one SELECT, columns with names of their
 * own, nothing that is never accepted.
 */
extern Query *pgt_query_parse(const char *text);
/* Columns of its result as ColumnDefs. */
extern List *pgt_query_columns(Query *query);
/* Of the same type, with modifier and collation; names are not compared. */
extern bool pgt_query_is_same_column(Form_pg_attribute attribute, const ColumnDef *column);
/* Errors unless the owner may read all of it, and row security hides nothing from him. */
extern void pgt_query_check_rights(Oid view_relid);
/* The query in words that mean the same under any search_path. */
/* Delta counts bytes, users count characters; both from 1. */
extern int pgt_query_position(const char *text, int position);
/* Refuses with errposition in the query what delta reports by byte. */
extern void pgt_query_refuse_mode(const PgtDefinition *definition, const char *text);

/* ---- options.c: the other arguments ---- */

/* Canonical text, or NULL for calculated. */
extern char *pgt_option_schedule(const char *text);
extern const char *pgt_option_diamond_consistency(const char *text);
extern const char *pgt_option_identity(const char *text);
/* In milliseconds; 0: none. */
extern int64 pgt_option_sla(const Interval *interval);
/* NULL for auto. */
extern const char *pgt_option_tier(const char *text);
/* True for SUSPENDED, false for ACTIVE. */
extern bool pgt_option_paused(const char *text);
/* Says once per session that nothing refreshes by itself without the library preloaded. */
extern void pgt_option_warn_scheduler(void);

/* ---- sla.c ---- */

/* Warns of an SLA that will not be kept. */
extern void pgt_sla_warn(const PgtStreamTable *st);

/* ---- diamond_fn.c ---- */

/* As the scheduler sees it: sources and stream tables, an edge per dependency. */
extern struct PgtGraph *pgt_diamond_load_graph(List *stream_tables);

/* ---- define.c: what a stream table consists of in the database ---- */

extern Oid pgt_define_table(const char *schema, const char *name, List *columns, Oid owner);
extern Oid pgt_define_view(int64 pgt_id, Oid relid, Query *query, List *columns, Oid owner);
extern void pgt_define_drop_view(Oid view_relid, Oid relid);
/*
 * Locks sources, notes dependencies, captures, makes stages and, unless the
 * user's table has it already or gets it later, identity.
 */
extern PgtDefinition *pgt_define_machinery(PgtStreamTable *st, const char *query_text,
										   bool with_identity);
/* Only the locks, for who takes others after them. */
extern void pgt_define_lock_sources(const PgtDefinition *definition);
/* The opposite of pgt_define_machinery; see pgt_define_release_view. */
extern void pgt_define_drop_machinery(PgtStreamTable *st);
/* Writes down its sources again, after names changed. */
extern void pgt_define_note_sources(PgtStreamTable *st);
/* Is the relation among its sources (views that it names included)? */
extern bool pgt_define_reads(const PgtStreamTable *st, Oid relid);
/*
 * Lets go of everything that the view reads and relies on, so that it can
 * change. The view means nothing from then on: it has to be made again.
 */
extern void pgt_define_release_view(Oid view_relid);
/* Takes back the capture of relations that nobody reads any more. */
extern void pgt_define_release_sources(List *dependencies);
/* Errors with the path if the stream table would read itself. */
extern void pgt_define_check_cycle(const PgtStreamTable *st, Query *query);

/* ---- losses.c, recreate.c: what another query costs ---- */

/* How the columns of another query go with the table. */
typedef enum PgtColumnsFit
{
	PGT_COLUMNS_SAME,
	PGT_COLUMNS_FOLLOW, /* new ones follow */
	PGT_COLUMNS_RETYPE, /* some change their types, new ones may follow */
	PGT_COLUMNS_REMAKE	/* some go, change names or places: another table */
} PgtColumnsFit;

/* What may be lost. */
typedef enum PgtLossPolicy
{
	PGT_LOSE_NOTHING, /* the user gave the query, and no cascade */
	PGT_LOSE_COLUMNS, /* the user changed a source: columns follow it, nothing else goes */
	PGT_LOSE_ALL	  /* cascade */
} PgtLossPolicy;

/*
 * Errors with a list of what would be lost if that is more than the policy
 * allows; else drops what cannot stay. keep_identity: the identity index and
 * what depends on it stay.
 */
extern void pgt_losses_settle(const PgtStreamTable *st, List *columns, PgtColumnsFit fit,
							  bool keep_identity, PgtLossPolicy policy);
/* Another table of the same name, owner and grants; everything on the old one goes. */
extern void pgt_recreate_table(PgtStreamTable *st, List *columns);

/* ---- Lifecycle ---- */

typedef struct PgtCreateArguments
{
	const char *name;
	const char *query;
	const char *schedule;
	const char *refresh_mode;
	bool initialize;
	const char *diamond_consistency; /* NULL: default */
	const Interval *sla;			 /* NULL: none */
	const char *tier;				 /* NULL: none */
	const char *identity;
} PgtCreateArguments;

typedef struct PgtAlterArguments
{
	const char *query; /* NULL: unchanged; so all of them */
	const char *schedule;
	const char *refresh_mode;
	const char *status;
	const char *diamond_consistency;
	const Interval *sla; /* of length 0: none */
	const char *tier;	 /* auto: none */
	const char *identity;
	bool cascade;
} PgtAlterArguments;

extern Oid pgt_lifecycle_create(const PgtCreateArguments *args);
/* Tells which indexes its refreshes miss. */
extern void pgt_lifecycle_hint_indexes(const PgtStreamTable *st);
/* False if everything is so already. */
extern bool pgt_lifecycle_alter(PgtStreamTable *st, const PgtAlterArguments *args);
/* Reads its query again, from a text that names everything in full, and computes everything. */
extern void pgt_lifecycle_redefine(PgtStreamTable *st, const char *text, const char *reason);
/* Makes all that is hidden of it anew; the next refresh computes everything. */
extern void pgt_lifecycle_redefine_later(PgtStreamTable *st, const char *reason);
/* Computes everything anew for a definition that changed under it (a view was replaced, ...). */
extern void pgt_lifecycle_rebuild(PgtStreamTable *st, const char *reason);
extern void pgt_lifecycle_drop(PgtStreamTable *st, bool cascade);
/* After the table is gone, however that happened. */
extern void pgt_lifecycle_forget(PgtStreamTable *st);
/* The query with every name qualified. */
extern char *pgt_lifecycle_query_text(const PgtStreamTable *st);
extern char *pgt_lifecycle_export(PgtStreamTable *st);
extern void pgt_lifecycle_pause(PgtStreamTable *st, bool pause);
/* Before a refresh whose stages were made for another analysis of the query. */
extern void pgt_lifecycle_make_anew(int64 pgt_id);
/* A refresh whose progress others see. */
extern void pgt_lifecycle_run(const PgtRefreshRequest *request);
extern void pgt_lifecycle_refresh(PgtStreamTable *st, const char *mode);

/* Errors in transactions whose snapshot is older than our locks. */
extern void pgt_lifecycle_check_isolation(void);
/* The stream table of that name, if the caller may change it; locked against refreshes. */
extern PgtStreamTable *pgt_lifecycle_open(const char *name);

/* ---- publication.c: the publication that consumers downstream follow ---- */

/* Of a name that every consumer may pass on without quotes. */
#define PGT_PLAIN_NAME "abcdefghijklmnopqrstuvwxyz0123456789_"

/* Its name; NULL if there is none, or the table is not in it any more. */
extern const char *pgt_publication_of(const PgtStreamTable *st);
/* Makes one (name NULL: called after the table), or tells the name of the one there is. */
extern char *pgt_publication_create(PgtStreamTable *st, const char *name);
extern void pgt_publication_drop(PgtStreamTable *st);
/* Errors unless wal_level is logical. */
extern void pgt_publication_check_server(void);
/* After the table was dropped. */
extern void pgt_publication_forget(const PgtStreamTable *st);
/* What users did to one by statements of their own. */
extern void pgt_publication_renamed(const char *old, const char *new);
extern void pgt_publication_dropped(const char *name);

/* That a table is listed in a publication, whoever made it. */
typedef struct PgtPublicationMember
{
	char *publication;
	char *
		add_again; /* the statement that lists another table of this name, columns and rows as before */
	bool fits;	   /* its column list and row filter name columns that stay */
} PgtPublicationMember;

extern List *pgt_publication_list_members(Oid relid, List *columns);
/* With the stream table, if it was its owner's. */
extern void pgt_publication_follow_owner(const PgtStreamTable *st, Oid old_owner, Oid owner);

/* publication_member.c: after CREATE and ALTER PUBLICATION: warns of what refreshes would fail for. */
extern void pgt_publication_made(const char *name);
/* Deletes all rows for who follows them; the table is about to be dropped. */
extern void pgt_publication_tell_deletes(Oid relid);

/* ---- ddl*.c: statements of users about tables, views and functions ---- */

/*
 * Runs DDL of ours as the extension's owner; neither guard nor event triggers
 * mind. Nothing that runs triggers or functions of users: pgt_ddl_run_as.
 */
extern void pgt_ddl_run(const char *sql);
extern void pgt_ddl_run_as(Oid owner, const char *sql);
/* pgt_refresh_drop_storage, which event triggers shall not mind either. */
extern void pgt_ddl_drop_storage(const PgtStreamTable *st);
extern bool pgt_ddl_is_internal(void);

/* ddl_stream_table.c: refuses what would change a stream table's shape. */
extern void pgt_ddl_check_alter(const AlterTableStmt *stmt);
extern void pgt_ddl_check_rename(const RenameStmt *stmt);
extern void pgt_ddl_check_create(const CreateStmt *stmt);
extern void pgt_ddl_check_drop(const DropStmt *stmt);
extern void pgt_ddl_check_rule(const RuleStmt *stmt);
extern void pgt_ddl_check_trigger(const CreateTrigStmt *stmt);
extern void pgt_ddl_follow_owner(PgtStreamTable *st);

/* ddl_retype.c: columns that queries use. */
extern void pgt_ddl_before_retype(const AlterTableStmt *stmt);
extern void pgt_ddl_after_retype(void);

/* ddl_source.c: what a change of something that queries use means for them. */
extern void pgt_ddl_source_altered(const AlterTableStmt *stmt);
extern void pgt_ddl_source_renamed(const RenameStmt *stmt);
extern void pgt_ddl_children_created(const CreateStmt *stmt);
extern void pgt_ddl_before_drop(const DropStmt *stmt);
extern void pgt_ddl_policies_changed(const RangeVar *table);
extern void pgt_ddl_mark_dependents(Oid classid, Oid objid, const char *reason);
extern void pgt_ddl_rebuild_dependents(Oid classid, Oid objid, const char *reason);

#endif /* PGT_API_INTERNAL_H */

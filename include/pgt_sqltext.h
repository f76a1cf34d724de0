/*
 * pgt_sqltext.h: pieces of SQL text, always quoted and schema-qualified.
 * Results are palloc'd in the current context.
 */
#ifndef PGT_SQLTEXT_H
#define PGT_SQLTEXT_H

#include "postgres.h"

#include "access/attnum.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"

extern char *pgt_sqltext_relation(Oid relid); /* "s"."t" */
extern char *pgt_sqltext_qualified(const char *schema, const char *name);
extern char *pgt_sqltext_type(Oid type, int32 typmod);		   /* pg_catalog.int4 */
extern char *pgt_sqltext_collation(Oid collation);			   /* "s"."c" */
extern char *pgt_sqltext_operator(Oid operator);			   /* OPERATOR(s.=) */
extern char *pgt_sqltext_column(Oid relid, AttrNumber attnum); /* quoted */
extern char *pgt_sqltext_literal(const char *text);			   /* NULL gives NULL */

/*
 * A query, which is changed by it; the caller has set a safe search_path. Its
 * constants mean the same whatever the settings of the session that reads it.
 */
extern char *pgt_sqltext_query(Query *query);

/*
 * Resolves the name a user gave for a stream table ("t", "s.t", "\"S\".t") as
 * any SQL name: through search_path when unqualified. Returns the relation's
 * oid, or InvalidOid when there is none and missing_ok; errors: invalid_name,
 * undefined_table.
 */
extern Oid pgt_sqltext_resolve(const char *name, bool missing_ok);
/*
 * The same for a name that shall be created: schema defaults to the current
 * one; errors: invalid_name, undefined_schema. schema_name may be NULL.
 */
extern void pgt_sqltext_split(const char *name, char **schema, char **relname);

#endif /* PGT_SQLTEXT_H */

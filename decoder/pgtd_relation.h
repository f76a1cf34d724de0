/*
 * pgtd_relation.h: what the plugin knows of a relation, and where it keeps it.
 *
 * An entry is found by oid for every change, so what a row needs is ready in it: column
 * names escaped, output functions looked up, arrays to deform into.
 *
 * Invalidations only mark entries. They can come in while an entry is in use, so nothing is
 * freed before the next pgtd_get_relation.
 */
#ifndef PGTD_RELATION_H
#define PGTD_RELATION_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"

#include "pgtd_out.h"
#include "pgtd_publication.h"
#include "pgtd_value.h"

struct PgtdRefresh;
struct PgtdTableRows;

typedef struct PgtdColumn
{
	int index;			/* in the tuple, from 0 */
	const char *name;	/* in the encoding of the database */
	const char *member; /* "name": in UTF-8, escaped */
	Size member_len;
	PgtdType *type;
	bool is_sent_as_text; /* in a binary format: some part of it has no binary form */
	bool in_identity;	  /* old images have it */
	bool is_unchanged;	  /* of the row at hand: not in WAL */
	bool is_oversize;	  /* of the row at hand: did not fit */
} PgtdColumn;

typedef struct PgtdRelation
{
	Oid relid;			   /* hash key */
	bool is_valid;		   /* cleared by invalidations */
	bool is_described;	   /* everything from "columns" to "format_data" is there */
	MemoryContext context; /* of what this points to */

	const char *schema; /* in the encoding of the database */
	const char *name;
	bool is_listed; /* option "tables" asks for it */
	bool is_excluded;
	PgtdPublished published; /* by the option's publications */

	PgtdColumn *columns;
	int column_count;
	int natts;			  /* of the tuples, dropped columns included */
	int *key;			  /* indexes into columns, in the order of the key */
	int key_count;		  /* 0: there is no key */
	bool key_in_identity; /* an old image always has the whole key */
	const char *identity; /* "full", "key" or "none" */
	bool needs_settings;
	bool needs_client_encoding; /* a binary format does */
	uint64 types_version;		/* of the cache, when this was built */
	bool has_user_types;
	const char *label; /* "schema.name" in UTF-8, a JSON string */
	const char *shape; /* members of the schema message; schema_id is its hash */
	uint64 schema_id;
	char schema_id_hex[17];
	Size overhead; /* bytes of a row that are not values, at most */
	Datum *old_values;
	bool *old_nulls;
	Datum *new_values;
	bool *new_nulls;
	void *format_data; /* of the envelope, NULL at first */

	/* What this session has sent; survives invalidation. */
	bool schema_sent;
	uint64 sent_schema_id;
	const char *sent_identity; /* a literal */

	/* The transaction at hand. */
	uint64 refresh_generation; /* when "refresh" was looked up */
	struct PgtdRefresh *refresh;
	uint64 transaction_number; /* when "rows" was looked up */
	struct PgtdTableRows *rows;
} PgtdRelation;

typedef struct PgtdRelationCache PgtdRelationCache;

/* In a child of CurrentMemoryContext. The lists are the options'. */
extern PgtdRelationCache *pgtd_make_relation_cache(const PgtdEncoding *encoding, const List *tables,
												   const List *exclude_tables,
												   const List *publications);

/*
 * The entry, valid, with names and filters; more after pgtd_describe_relation, which names
 * types and so needs quote_all_identifiers off.
 */
extern PgtdRelation *pgtd_get_relation(PgtdRelationCache *cache, Relation relation);
extern void pgtd_describe_relation(PgtdRelationCache *cache, PgtdRelation *rel, Relation relation);

/* A table's name as messages have it: quoted where it must be, a JSON string in UTF-8. */
extern void pgtd_put_label(PgtdOut *out, const char *schema, const char *name);

#endif /* PGTD_RELATION_H */

/*
 * pgtd_filter.h: lists of tables and of message prefixes, as slot options take them.
 *
 * Pure: values in, values out; results are palloc'd in the current context.
 */
#ifndef PGTD_FILTER_H
#define PGTD_FILTER_H

#include "nodes/pg_list.h"

/* What the option's error says that a list of tables may hold. */
#define PGTD_TABLES_SYNTAX                                                                         \
	"a comma-separated list of schema.table, where either part may be * or be quoted like an SQL " \
	"identifier, or * alone"
#define PGTD_PREFIXES_SYNTAX "a comma-separated list of message prefixes, each exact or ending in *"

/* False when the text is not such a list; an empty text is an empty list. */
extern bool pgtd_parse_tables(const char *text, List **tables);
extern bool pgtd_parse_prefixes(const char *text, List **prefixes);

/*
 * The schemas of the extension itself match only when they are named: "*" means the tables
 * of users.
 */
extern bool pgtd_match_tables(const List *tables, const char *schema, const char *table);
extern bool pgtd_is_own_schema(const char *schema);
extern bool pgtd_match_prefixes(const List *prefixes, const char *prefix);

/* Is the prefix listed as it is, not through a *? */
extern bool pgtd_match_prefix_exactly(const List *prefixes, const char *prefix);

#endif /* PGTD_FILTER_H */

/*
 * filter.c: which tables and which messages a consumer asked for.
 *
 * Owns nothing. Lists are parsed once, at startup, into the context of the plugin; tables
 * are matched once per relation, since the relation cache keeps the answer.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "parser/scansup.h"

#include "pgtd_filter.h"

/* NULL stands for any name. */
typedef struct TablePattern
{
	char *schema;
	char *table;
} TablePattern;

static const char *const own_schemas[] = {"pgtrickle", "pgtrickle_changes", "pgtrickle_state"};

static const char *
skip_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

static bool
is_name_start(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || IS_HIGHBIT_SET(c);
}

static bool
is_name_part(unsigned char c)
{
	return is_name_start(c) || (c >= '0' && c <= '9') || c == '$';
}

/* Reads *at, which is at the opening quote, up to behind the closing one. */
static bool
parse_quoted_name(const char **at, char **name)
{
	const char *from = *at + 1;
	char *to = *name = palloc(strlen(from) + 1);

	for (; *from != '\0'; from++)
	{
		if (*from == '"')
		{
			if (from[1] != '"')
			{
				*to = '\0';
				*at = from + 1;
				return to > *name;
			}
			from++;
		}
		*to++ = *from;
	}
	return false;
}

/* One part of schema.table: NULL for *, else the name as the catalogs spell it. */
static bool
parse_name(const char **at, char **name)
{
	const char *start = *at;

	*name = NULL;
	if (*start == '*')
	{
		(*at)++;
		return true;
	}
	if (*start == '"')
		return parse_quoted_name(at, name);
	if (!is_name_start(*start))
		return false;
	while (is_name_part(**at))
		(*at)++;
	*name = downcase_truncate_identifier(start, (int) (*at - start), false);
	return true;
}

static bool
parse_pattern(const char **at, TablePattern *pattern)
{
	if (!parse_name(at, &pattern->schema))
		return false;
	*at = skip_space(*at);
	if (**at == '.')
	{
		*at = skip_space(*at + 1);
		return parse_name(at, &pattern->table);
	}
	pattern->table = NULL;
	return pattern->schema == NULL;
}

bool
pgtd_parse_tables(const char *text, List **tables)
{
	const char *at = skip_space(text);

	*tables = NIL;
	if (*at == '\0')
		return true;
	for (;;)
	{
		TablePattern *pattern = palloc(sizeof(TablePattern));

		if (!parse_pattern(&at, pattern))
			return false;
		*tables = lappend(*tables, pattern);
		at = skip_space(at);
		if (*at == '\0')
			return true;
		if (*at != ',')
			return false;
		at = skip_space(at + 1);
	}
}

bool
pgtd_is_own_schema(const char *schema)
{
	for (int i = 0; i < lengthof(own_schemas); i++)
	{
		if (strcmp(schema, own_schemas[i]) == 0)
			return true;
	}
	return false;
}

bool
pgtd_match_tables(const List *tables, const char *schema, const char *table)
{
	bool is_own = pgtd_is_own_schema(schema);
	ListCell *cell;

	foreach (cell, tables)
	{
		const TablePattern *pattern = lfirst(cell);

		if (pattern->schema == NULL ? is_own : strcmp(pattern->schema, schema) != 0)
			continue;
		if (pattern->table == NULL || strcmp(pattern->table, table) == 0)
			return true;
	}
	return false;
}

bool
pgtd_parse_prefixes(const char *text, List **prefixes)
{
	const char *at = skip_space(text);

	*prefixes = NIL;
	while (*at != '\0')
	{
		Size len = strcspn(at, ",");
		Size trimmed = len;

		while (trimmed > 0 && strchr(" \t\r\n", at[trimmed - 1]) != NULL)
			trimmed--;
		if (trimmed == 0)
			return false;
		*prefixes = lappend(*prefixes, pnstrdup(at, trimmed));
		if (at[len] == '\0')
			return true;
		at = skip_space(at + len + 1);
		if (*at == '\0')
			return false;
	}
	return true;
}

bool
pgtd_match_prefixes(const List *prefixes, const char *prefix)
{
	ListCell *cell;

	foreach (cell, prefixes)
	{
		const char *wanted = lfirst(cell);
		Size len = strlen(wanted);

		if (wanted[len - 1] == '*' ? strncmp(wanted, prefix, len - 1) == 0
								   : strcmp(wanted, prefix) == 0)
			return true;
	}
	return false;
}

bool
pgtd_match_prefix_exactly(const List *prefixes, const char *prefix)
{
	ListCell *cell;

	foreach (cell, prefixes)
	{
		if (strcmp(lfirst(cell), prefix) == 0)
			return true;
	}
	return false;
}

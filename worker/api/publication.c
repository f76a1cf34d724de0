/*
 * publication.c: the publication of a stream table that consumers downstream follow.
 *
 * The definition holds its name, so that a dump brings it along. What is there is
 * asked of the server's catalogs each time: a publication that was dropped, or that
 * the table was taken out of, is none (pgt_publication_of). Statements that rename
 * or drop it are followed by event triggers (ddl.c).
 *
 * It is made and changed as the owner of the stream table, who needs the rights that
 * CREATE PUBLICATION asks for; dropped as the extension's owner, after the right on
 * the stream table was checked.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_publication.h"
#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pgt_compat.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "api_internal.h"

static bool
exists(const char *name)
{
	return OidIsValid(get_publication_oid(name, true));
}

/* Is the table listed in it? FOR ALL TABLES and schemas are no lists of tables. */
static bool
lists(const char *name, Oid relid)
{
	return SearchSysCacheExists2(PUBLICATIONRELMAP, ObjectIdGetDatum(relid),
								 ObjectIdGetDatum(get_publication_oid(name, true)));
}

const char *
pgt_publication_of(const PgtStreamTable *st)
{
	if (st->publication == NULL || !exists(st->publication) || !lists(st->publication, st->relid))
		return NULL;
	return st->publication;
}

/* ---- Names ---- */

/*
 * In lower case, and _ for what is not a letter of ASCII or a digit: a consumer tells the server
 * the names as a list of identifiers, and not every one puts quotes where they are needed.
 */
static char *
make_plain(const char *name)
{
	char *plain = palloc(strlen(name) + 1);
	int n = 0;

	for (; *name != '\0'; name += pg_mblen(name))
	{
		unsigned char c = pg_ascii_tolower((unsigned char) *name);

		plain[n++] = strchr(PGT_PLAIN_NAME, c) != NULL ? c : '_';
	}
	plain[n] = '\0';
	return plain;
}

/* pgt_<schema>_<table>, as much of it as fits; with a hash of both names if asked for or cut. */
static char *
make_name(Oid relid, bool with_hash)
{
	char *schema = get_namespace_name(get_rel_namespace(relid));
	char *table = get_rel_name(relid);
	char *name = psprintf("pgt_%s_%s", make_plain(schema), make_plain(table));
	uint32 hash;

	if (strlen(name) < NAMEDATALEN && !with_hash)
		return name;
	hash = hash_combine(string_hash(schema, NAMEDATALEN), string_hash(table, NAMEDATALEN));
	return psprintf("%.*s_%08x", (int) (NAMEDATALEN - 1 - strlen("_00000000")), name, hash);
}

static char *
choose_name(Oid relid)
{
	char *name = make_name(relid, false);

	return exists(name) ? make_name(relid, true) : name;
}

static void
check_name(const char *name)
{
	if (*name == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("invalid name of a publication: \"%s\"", name),
						errdetail("A name has 1 to %d bytes.", NAMEDATALEN - 1)));
	if (exists(name))
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("publication \"%s\" already exists", name),
						errhint("Give another name as argument \"publication\", or use "
								"ALTER PUBLICATION ... ADD TABLE.")));
}

/* ---- What it needs ---- */

void
pgt_publication_check_server(void)
{
	if (wal_level < WAL_LEVEL_LOGICAL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consumers downstream need wal_level = logical"),
				 errdetail("wal_level is \"%s\".", GetConfigOption("wal_level", false, false)),
				 errhint("ALTER SYSTEM SET wal_level = 'logical', then restart the server.")));
}

static void
check_owner_may(Oid owner)
{
	const char *role = quote_identifier(GetUserNameFromId(owner, false));
	const char *database = get_database_name(MyDatabaseId);

	if (!pgt_compat_may_create_in_database(MyDatabaseId, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the stream table may not make publications"),
				 errdetail("Role %s has no CREATE on database \"%s\".", role, database),
				 errhint("GRANT CREATE ON DATABASE %s TO %s;", quote_identifier(database), role)));
}

/* Without one, updates and deletes of a published table fail. */
static void
check_identity(const PgtStreamTable *st)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(st->relid));
	char identity = ((Form_pg_class) GETSTRUCT(tuple))->relreplident;

	ReleaseSysCache(tuple);
	if (identity == REPLICA_IDENTITY_NOTHING)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("stream table \"%s\" has no replica identity", get_rel_name(st->relid)),
			 errhint("ALTER TABLE %s REPLICA IDENTITY FULL;", pgt_sqltext_relation(st->relid))));
}

/* ---- Making and dropping ---- */

static void
note(PgtStreamTable *st, const char *name)
{
	st->publication = name == NULL ? NULL : pstrdup(name);
	pgt_stream_table_set_publication(st->pgt_id, name);
}

char *
pgt_publication_create(PgtStreamTable *st, const char *name)
{
	Oid owner = pgt_stream_table_owner(st);
	const char *current = pgt_publication_of(st);

	if (current != NULL && (name == NULL || strcmp(name, current) == 0))
		return pstrdup(current);
	if (current != NULL)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("stream table \"%s\" has publication \"%s\"",
							   get_rel_name(st->relid), current),
						errhint("ALTER PUBLICATION %s RENAME TO %s, or drop it first with "
								"pgtrickle.drop_stream_table_publication.",
								quote_identifier(current), quote_identifier(name))));
	pgt_publication_check_server();
	check_identity(st);
	check_owner_may(owner);
	if (name == NULL)
		name = choose_name(st->relid);
	check_name(name);
	pgt_ddl_run_as(owner, psprintf("CREATE PUBLICATION %s FOR TABLE %s", quote_identifier(name),
								   pgt_sqltext_relation(st->relid)));
	note(st, name);
	return pstrdup(name);
}

/* Does it publish anything but this table? Users may have added to it. */
static bool
has_others(const char *name, Oid relid)
{
	PgtRows *rows = pgt_spi_select(psprintf(
		"SELECT p.puballtables"
		" OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r"
		" WHERE r.prpubid = p.oid AND r.prrelid <> %u)"
		" OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n WHERE n.pnpubid = p.oid)"
		" FROM pg_catalog.pg_publication p WHERE p.pubname = %s",
		relid, pgt_sqltext_literal(name)));

	return rows->nrows > 0 && pgt_spi_bool(rows, 0, 1);
}

static void
drop(const char *name, Oid relid, bool table_is_there)
{
	if (!exists(name))
		return;
	if (!has_others(name, relid))
		pgt_ddl_run(psprintf("DROP PUBLICATION %s", quote_identifier(name)));
	else if (table_is_there && lists(name, relid))
	{
		pgt_ddl_run(psprintf("ALTER PUBLICATION %s DROP TABLE %s", quote_identifier(name),
							 pgt_sqltext_relation(relid)));
		ereport(NOTICE,
				(errmsg("publication \"%s\" was kept", name),
				 errdetail("It publishes other tables, too; the stream table was taken out.")));
	}
}

void
pgt_publication_drop(PgtStreamTable *st)
{
	const char *name = st->publication;

	if (pgt_publication_of(st) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream table \"%s\" has no publication", get_rel_name(st->relid)),
				 name == NULL ? 0
							  : errdetail("Publication \"%s\" was dropped, or the stream table was "
										  "taken out of it.",
										  name),
				 errhint("Make one with pgtrickle.stream_table_to_publication(name).")));
	drop(name, st->relid, true);
	note(st, NULL);
}

void
pgt_publication_forget(const PgtStreamTable *st)
{
	if (st->publication != NULL)
		drop(st->publication, st->relid, false);
}

/* ---- Statements of users ---- */

static void
replace_name(const char *old, const char *new)
{
	ListCell *lc;

	foreach (lc, pgt_stream_table_list())
	{
		PgtStreamTable *st = lfirst(lc);

		if (st->publication != NULL && strcmp(st->publication, old) == 0)
			note(st, new);
	}
}

void
pgt_publication_renamed(const char *old, const char *new)
{
	replace_name(old, new);
}

void
pgt_publication_dropped(const char *name)
{
	if (!exists(name)) /* dropped and made again by one who watches drops, too */
		replace_name(name, NULL);
}

void
pgt_publication_follow_owner(const PgtStreamTable *st, Oid old_owner, Oid owner)
{
	const char *name = pgt_publication_of(st);
	HeapTuple tuple;
	Oid current;

	if (name == NULL)
		return;
	tuple = SearchSysCache1(PUBLICATIONNAME, CStringGetDatum(name));
	current = ((Form_pg_publication) GETSTRUCT(tuple))->pubowner;
	ReleaseSysCache(tuple);
	if (current == old_owner)
		pgt_ddl_run(psprintf("ALTER PUBLICATION %s OWNER TO %s", quote_identifier(name),
							 quote_identifier(GetUserNameFromId(owner, false))));
}

/* ---- A table that is made again ---- */

/* Do the columns that a row filter or column list names stay? */
static bool
fits_columns(Oid relid, Oid member, List *columns)
{
	PgtRows *rows = pgt_spi_select(
		psprintf("SELECT DISTINCT d.refobjsubid FROM pg_catalog.pg_depend d"
				 " WHERE d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass"
				 " AND d.objid = %u AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
				 " AND d.refobjid = %u AND d.refobjsubid > 0",
				 member, relid));
	Relation relation = table_open(relid, AccessShareLock);
	int found = 0;

	for (int i = 0; i < rows->nrows; i++)
	{
		bool isnull;
		int attnum = DatumGetInt32(pgt_spi_datum(rows, i, 1, &isnull));
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), attnum - 1);
		ListCell *lc;

		foreach (lc, columns)
			if (strcmp(lfirst_node(ColumnDef, lc)->colname, NameStr(attribute->attname)) == 0)
				found += pgt_query_is_same_column(attribute, lfirst_node(ColumnDef, lc));
	}
	table_close(relation, NoLock);
	return found == rows->nrows;
}

List *
pgt_publication_list_members(Oid relid, List *columns)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows;
	List *members = NIL;

	rows = pgt_spi_select(psprintf(
		"SELECT r.oid, p.pubname,"
		" pg_catalog.format('ALTER PUBLICATION %%I ADD TABLE %%s', p.pubname, %s) || coalesce("
		" ' (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)"
		" FROM pg_catalog.unnest(r.prattrs::pg_catalog.int2[]) n JOIN pg_catalog.pg_attribute a"
		" ON a.attrelid = r.prrelid AND a.attnum = n) || ')', '') || coalesce("
		" ' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')', '')"
		" FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
		" WHERE r.prrelid = %u ORDER BY p.pubname",
		pgt_sqltext_literal(pgt_sqltext_relation(relid)), relid));
	for (int i = 0; i < rows->nrows; i++)
	{
		PgtPublicationMember *member = palloc(sizeof(PgtPublicationMember));

		member->publication = pgt_spi_text(rows, i, 2);
		member->add_again = pgt_spi_text(rows, i, 3);
		member->fits = fits_columns(relid, pgt_spi_oid(rows, i, 1), columns);
		members = lappend(members, member);
	}
	pgt_security_restore(&saved);
	return members;
}

/*
 * storage.c: what a stored table of a stage needs besides its columns: the
 * index that identifies its rows, a replica identity, and for aggregate stages
 * the table of their states.
 *
 * Called at creation, and again by a refresh that finds something missing;
 * makes only what is missing. Runs as the extension's owner.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "parser/parse_agg.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pgt_compat.h"
#include "pgt_extension.h"
#include "pgt_security.h"
#include "pgt_spi.h"
#include "pgt_sqltext.h"

#include "refresh_internal.h"

#define SCOPE_COMMENT "partitions of the rows of this stream table"
#define FILLFACTOR 80 /* of tables whose rows are updated */

/* ---- Indexes ---- */

/* Is the operator the equality of the type's default btree operator class? */
static bool
has_default_equality(Oid type, Oid operator)
{
	Oid opclass = GetDefaultOpClass(type, BTREE_AM_OID);

	return OidIsValid(opclass) &&
		   get_op_opfamily_strategy(operator, get_opclass_family(opclass)) == BTEqualStrategyNumber;
}

/* The operator class that the operator belongs to under this strategy, as SQL. */
static char *
opclass_of(Oid type, Oid operator, int strategy)
{
	PgtRows *rows = pgt_spi_select(
		psprintf("SELECT n.nspname, c.opcname FROM pg_catalog.pg_opclass c"
				 " JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace"
				 " JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily"
				 " WHERE c.opcmethod = %u AND o.amopopr = %u AND o.amopstrategy = %d"
				 " AND o.amoplefttype = c.opcintype ORDER BY c.oid LIMIT 1",
				 BTREE_AM_OID, operator, strategy));

	if (rows->nrows == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("operator %u has no btree operator class for type %s", operator,
							   format_type_be(type))));
	return pgt_sqltext_qualified(pgt_spi_text(rows, 0, 1), pgt_spi_text(rows, 0, 2));
}

static void
append_key_column(StringInfo sql, Relation relation, AttrNumber attnum, Oid operator, Oid collation)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), attnum - 1);

	appendStringInfoString(sql, quote_identifier(NameStr(attribute->attname)));
	if (OidIsValid(collation) && collation != attribute->attcollation)
		appendStringInfo(sql, " COLLATE %s", pgt_sqltext_collation(collation));
	if (!has_default_equality(attribute->atttypid, operator))
		appendStringInfo(sql, " %s",
						 opclass_of(attribute->atttypid, operator, BTEqualStrategyNumber));
}

/* Can the key be declared as PRIMARY KEY? */
static bool
can_be_primary(Relation relation, const PgtStage *stage)
{
	if (!stage->keys_not_null)
		return false;
	for (int i = 0; i < stage->nkeys; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), stage->keys[i] - 1);

		if (!has_default_equality(attribute->atttypid, stage->key_operators[i]) ||
			attribute->attcollation != stage->key_collations[i])
			return false;
	}
	return true;
}

static char *
key_columns(Relation relation, int nkeys, const AttrNumber *keys, const Oid *operators,
			const Oid *collations)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < nkeys; i++)
	{
		if (i > 0)
			appendStringInfoString(&sql, ", ");
		append_key_column(&sql, relation, keys[i], operators[i], collations[i]);
	}
	return sql.data;
}

/* A comment tells which index is ours, also to the user, and survives a dump. */
Oid
pgt_storage_mark_index(const PgtStage *stage, bool is_state)
{
	Relation relation = table_open(is_state ? stage->state_relid : stage->relid, AccessShareLock);
	TargetInfo *info = is_state ? pgt_target_get_state(relation, stage)
								: pgt_target_get_stage(relation, stage);

	table_close(relation, NoLock);
	if (!OidIsValid(info->index_relid))
		elog(ERROR, "the identity index of \"%s\" cannot be used", get_rel_name(stage->relid));
	pgt_spi_execute(psprintf("COMMENT ON INDEX %s IS %s", pgt_sqltext_relation(info->index_relid),
							 pgt_sqltext_literal(PGT_IDENTITY_COMMENT)));
	return info->index_relid;
}

/* Rows without a key that are always computed whole are never looked up. */
static bool
needs_identity_index(const PgtStage *stage)
{
	return stage->identity == PGT_IDENTITY_KEY ||
		   (stage->identity == PGT_IDENTITY_ROW && stage->technique != PGT_TECHNIQUE_FULL);
}

static void
create_identity_index(const PgtStage *stage, bool is_stage)
{
	char *name = pgt_sqltext_relation(stage->relid);
	Relation relation = table_open(stage->relid, AccessShareLock);
	TargetInfo *info = pgt_target_get_stage(relation, stage);
	char *sql = NULL;

	if (OidIsValid(info->index_relid) || !needs_identity_index(stage))
		;
	else if (stage->identity == PGT_IDENTITY_ROW)
		sql = psprintf("CREATE INDEX ON %s (%s(%s.*))", name,
					   pgt_sqltext_qualified(PGT_SCHEMA, "row_hash"),
					   quote_identifier(RelationGetRelationName(relation)));
	else if (stage->identity == PGT_IDENTITY_KEY)
	{
		char *columns = key_columns(relation, stage->nkeys, stage->keys, stage->key_operators,
									stage->key_collations);

		if (!is_stage && can_be_primary(relation, stage) &&
			!OidIsValid(pgt_compat_primary_key_index(relation)))
			sql = psprintf("ALTER TABLE %s ADD PRIMARY KEY (%s)", name, columns);
		else
			sql = psprintf("CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT", name, columns);
	}
	table_close(relation, NoLock);
	if (sql == NULL)
		return;
	pgt_spi_execute(sql);
	pgt_storage_mark_index(stage, false);
}

bool
pgt_storage_is_scope_index_of_ours(Oid index_relid)
{
	char *comment = GetComment(index_relid, RelationRelationId, 0);

	return comment != NULL && strcmp(comment, SCOPE_COMMENT) == 0;
}

void
pgt_storage_mark_scope_index(const PgtStage *stage)
{
	Relation relation = table_open(stage->relid, AccessShareLock);
	TargetInfo *info = pgt_target_get_stage(relation, stage);

	table_close(relation, NoLock);
	if (!OidIsValid(info->scope_index))
		elog(ERROR, "the partition index of \"%s\" cannot be used", get_rel_name(stage->relid));
	pgt_spi_execute(psprintf("COMMENT ON INDEX %s IS %s", pgt_sqltext_relation(info->scope_index),
							 pgt_sqltext_literal(SCOPE_COMMENT)));
}

/* The index by which the rows of a partition are found. */
void
pgt_storage_create_scope_index(const PgtStage *stage)
{
	Relation relation = table_open(stage->relid, AccessShareLock);
	TargetInfo *info = pgt_target_get_stage(relation, stage);
	char *sql = NULL;

	if (stage->nscope > 0 && !OidIsValid(info->scope_index))
		sql = psprintf("CREATE INDEX ON %s (%s)", pgt_sqltext_relation(stage->relid),
					   key_columns(relation, stage->nscope, stage->scope, stage->scope_operators,
								   stage->scope_collations));
	table_close(relation, NoLock);
	if (sql == NULL)
		return;
	pgt_spi_execute(sql);
	pgt_storage_mark_scope_index(stage);
}

/* The indexes by which later stages read it; their names tell whether they are there. */
char *
pgt_storage_access_index_name(const PgtStage *stage, int number)
{
	return psprintf("%s_x%d", get_rel_name(stage->relid), number + 1);
}

static void
append_order(StringInfo sql, Relation relation, const PgtStageIndex *index, int i)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), index->columns[i] - 1);
	Oid default_class = GetDefaultOpClass(attribute->atttypid, BTREE_AM_OID);
	Oid family;
	Oid type;
	int16 strategy;

	if (!pgt_compat_ordering_operator(index->operators[i], &family, &type, &strategy))
		elog(ERROR, "operator %u is not an ordering operator", index->operators[i]);
	appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", quote_identifier(NameStr(attribute->attname)));
	if (!OidIsValid(default_class) || get_opclass_family(default_class) != family)
		appendStringInfo(sql, " %s",
						 opclass_of(attribute->atttypid, index->operators[i], strategy));
	appendStringInfo(sql, "%s NULLS %s", strategy == BTGreaterStrategyNumber ? " DESC" : "",
					 index->nulls_first[i] ? "FIRST" : "LAST");
}

static void
create_access_indexes(const PgtStage *stage, bool filled)
{
	ListCell *lc;

	foreach (lc, stage->indexes)
	{
		PgtStageIndex *index = lfirst(lc);
		char *name = pgt_storage_access_index_name(stage, foreach_current_index(lc));
		Relation relation;
		StringInfoData sql;

		if (OidIsValid(get_relname_relid(name, get_rel_namespace(stage->relid))))
			continue;
		relation = table_open(stage->relid, AccessShareLock);
		if (filled && pgt_storage_has_wide(relation, index->ncolumns, index->columns))
		{
			table_close(relation, NoLock);
			continue;
		}
		initStringInfo(&sql);
		appendStringInfo(&sql, "CREATE INDEX %s ON %s (", quote_identifier(name),
						 pgt_sqltext_relation(stage->relid));
		for (int i = 0; i < index->ncolumns; i++)
			append_order(&sql, relation, index, i);
		table_close(relation, NoLock);
		appendStringInfoChar(&sql, ')');
		pgt_spi_execute(sql.data);
	}
}

/* ---- Replica identity ---- */

static void
refuse_key_identity(Relation relation)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("the rows of \"%s\" have no key that could be their replica identity",
				RelationGetRelationName(relation)),
		 errdetail(
			 "identity => 'key' needs a key of the query's result whose columns are never null."),
		 errhint("Use identity => 'full', or add the key columns to the query.")));
}

static void
set_replica_identity(const PgtStreamTable *st, const PgtStage *stage)
{
	Relation relation = table_open(stage->relid, AccessShareLock);
	char *name = pgt_sqltext_relation(stage->relid);
	char *sql;

	if (st->identity == NULL || pg_strcasecmp(st->identity, "key") != 0)
		sql = psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", name);
	else
	{
		TargetInfo *info = pgt_target_get_stage(relation, stage);

		if (stage->identity != PGT_IDENTITY_KEY || !OidIsValid(info->index_relid))
			refuse_key_identity(relation);
		for (int i = 0; i < stage->nkeys; i++)
			if (!TupleDescAttr(RelationGetDescr(relation), stage->keys[i] - 1)->attnotnull)
				refuse_key_identity(relation);
		sql = psprintf("ALTER TABLE %s REPLICA IDENTITY USING INDEX %s", name,
					   quote_identifier(get_rel_name(info->index_relid)));
	}
	table_close(relation, NoLock);
	pgt_spi_execute(sql);
}

/* ---- The state table of an aggregate stage ---- */

static Oid
state_type(const PgtAggregate *aggregate)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate->aggfnoid));
	Oid type;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate->aggfnoid);
	type = resolve_aggregate_transtype(aggregate->aggfnoid,
									   ((Form_pg_aggregate) GETSTRUCT(tuple))->aggmtranstype,
									   (Oid *) aggregate->argtypes, aggregate->nargs);
	ReleaseSysCache(tuple);
	return type == INTERNALOID ? BYTEAOID : type;
}

/* As the delta engine looks it up: see PgtStage.state_relid. */
static char *
state_table_name(const PgtStreamTable *st, const PgtStage *stage)
{
	return psprintf("state_" INT64_FORMAT "_%d", st->pgt_id, stage->number);
}

static void
depend_on_table(Oid state_relid, Oid relid)
{
	ObjectAddress state = {RelationRelationId, state_relid, 0};
	ObjectAddress table = {RelationRelationId, relid, 0};

	recordDependencyOn(&state, &table, DEPENDENCY_AUTO);
}

static void
create_state_table(const PgtStreamTable *st, const PgtStage *stage)
{
	char *relname = state_table_name(st, stage);
	char *name = pgt_sqltext_qualified(PGT_STATE_SCHEMA, relname);
	Relation relation = table_open(stage->relid, AccessShareLock);
	AttrNumber keys[INDEX_MAX_KEYS];
	StringInfoData sql;
	char *columns;
	Oid relid;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (", name);
	for (int i = 0; i < stage->nkeys; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), stage->keys[i] - 1);

		keys[i] = i + 1;
		appendStringInfo(&sql, "k%d %s", i + 1,
						 pgt_sqltext_type(attribute->atttypid, attribute->atttypmod));
		if (OidIsValid(attribute->attcollation))
			appendStringInfo(&sql, " COLLATE %s", pgt_sqltext_collation(attribute->attcollation));
		appendStringInfoString(&sql, ", ");
	}
	appendStringInfoString(&sql, "pgt_epoch pg_catalog.int8, pgt_n pg_catalog.int8");
	for (int i = 0; i < stage->naggregates; i++)
		appendStringInfo(&sql, ", s%d %s, c%d pg_catalog.int8", i + 1,
						 pgt_sqltext_type(state_type(&stage->aggregates[i]), -1), i + 1);
	/* aggregate.c tells its rows by their places in pages. */
	appendStringInfo(&sql, ") USING heap WITH (fillfactor = %d)", FILLFACTOR);
	pgt_spi_execute(sql.data);
	/* A publication of all tables has it, too, and would stop updates without one. */
	pgt_spi_execute(psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", name));
	table_close(relation, NoLock);
	for (int i = 0; i < stage->naggregates; i++)
		pgt_delta_create_state_aggregate(&stage->aggregates[i]);
	/* The owner's statements name these aggregates. */
	pgt_security_let_use_state_schema(pgt_compat_relation_owner(st->relid));

	relid = get_relname_relid(relname, pgt_extension_schema(PGT_STATE_SCHEMA));
	depend_on_table(relid, st->relid);
	if (stage->nkeys == 0)
		return;
	relation = table_open(relid, AccessShareLock);
	columns = key_columns(relation, stage->nkeys, keys, stage->key_operators,
						  stage->key_collations);
	table_close(relation, NoLock);
	pgt_spi_execute(psprintf("CREATE UNIQUE INDEX ON %s (%s) NULLS NOT DISTINCT", name, columns));
}

static void
create_states(const PgtStreamTable *st, const PgtStage *stage)
{
	if (stage->technique == PGT_TECHNIQUE_AGGREGATE &&
		!OidIsValid(
			get_relname_relid(state_table_name(st, stage), pgt_extension_schema(PGT_STATE_SCHEMA))))
		create_state_table(st, stage);
}

/* ---- All together ---- */

/* The user has not chosen a fillfactor: leave room, so that updates stay on their page. */
static void
set_fillfactor(const PgtStage *stage)
{
	Relation relation;
	bool set;

	if (stage->identity == PGT_IDENTITY_ROW)
		return; /* no row is ever updated */
	relation = table_open(stage->relid, AccessShareLock);
	set = RelationGetFillFactor(relation, 0) != 0;
	table_close(relation, NoLock);
	if (!set)
		pgt_spi_execute(psprintf("ALTER TABLE %s SET (fillfactor = %d)",
								 pgt_sqltext_relation(stage->relid), FILLFACTOR));
}

/* filled: are there rows already? */
void
pgt_storage_create(const PgtStreamTable *st, const PgtStage *stage, bool is_stage, bool filled)
{
	PgtSecurity saved = pgt_security_become_extension_owner();

	set_fillfactor(stage);
	create_identity_index(stage, is_stage);
	pgt_storage_create_scope_index(stage);
	if (is_stage)
		create_access_indexes(stage, filled);
	else
		set_replica_identity(st, stage);
	create_states(st, stage);
	pgt_security_restore(&saved);
}

/*
 * Identity index (a PRIMARY KEY where the key is never null), replica identity,
 * indexes by which rows are found and read, state table. st tells the identity
 * option; is_stage: a hidden table, which nobody publishes.
 */
void
pgt_refresh_create_storage(const PgtStreamTable *st, const PgtStage *stage, bool is_stage)
{
	pgt_storage_create(st, stage, is_stage, false);
}

/* Only the state table: the rows in the user's table are still those of another query. */
void
pgt_refresh_create_states(const PgtStreamTable *st, const PgtStage *stage)
{
	PgtSecurity saved = pgt_security_become_extension_owner();

	create_states(st, stage);
	pgt_security_restore(&saved);
}

/* Gives the table the replica identity that st->identity asks for. */
void
pgt_refresh_set_identity(const PgtStreamTable *st)
{
	PgtDelta *delta = pgt_delta_open(st->pgt_id, st->relid, st->view_relid);
	const PgtStage *stage = llast(pgt_delta_definition(delta)->stages);
	PgtSecurity saved = pgt_security_become_extension_owner();

	set_replica_identity(st, stage);
	pgt_security_restore(&saved);
}

/* Columns that are NOT NULL because the index is, or was before the key became wide, a PRIMARY KEY. */
static List *
not_null_columns(Oid index_relid)
{
	Relation index = index_open(index_relid, AccessShareLock);
	List *expressions = RelationGetIndexExpressions(index);
	FuncExpr *call = list_length(expressions) == 1 ? linitial(expressions) : NULL;
	List *columns = NIL;
	ListCell *lc;

	if (call == NULL && OidIsValid(get_index_constraint(index_relid)))
		for (int i = 0; i < index->rd_index->indnkeyatts; i++)
			columns = lappend_int(columns, index->rd_index->indkey.values[i]);
	else if (call != NULL && IsA(call, FuncExpr) && call->funcid == F_HASH_RECORD_EXTENDED)
		foreach (lc, linitial_node(RowExpr, call->args)->args)
			columns = lappend_int(columns, lfirst_node(Var, lc)->varattno);
	index_close(index, AccessShareLock);
	return columns;
}

void
pgt_storage_drop_index(Oid relid, Oid index_relid)
{
	Oid constraint = get_index_constraint(index_relid);

	if (OidIsValid(constraint))
		pgt_spi_execute(psprintf("ALTER TABLE %s DROP CONSTRAINT %s", pgt_sqltext_relation(relid),
								 quote_identifier(get_constraint_name(constraint))));
	else
		pgt_spi_execute(psprintf("DROP INDEX %s", pgt_sqltext_relation(index_relid)));
}

/* The columns of a former PRIMARY KEY may be null again. */
static void
drop_not_null(Oid relid, List *columns)
{
	ListCell *lc;

	foreach (lc, columns)
		pgt_spi_execute(psprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL",
								 pgt_sqltext_relation(relid),
								 pgt_sqltext_column(relid, lfirst_int(lc))));
}

/* Oids of the indexes that we made on the table. */
List *
pgt_refresh_list_indexes(Oid relid)
{
	List *indexes = NIL;
	PgtSecurity saved = pgt_security_become_extension_owner();
	PgtRows *rows = pgt_spi_select(psprintf("SELECT i.indexrelid FROM pg_catalog.pg_index i"
											" WHERE i.indrelid = %u AND pg_catalog.obj_description("
											"i.indexrelid, 'pg_class') IN (%s, %s) ORDER BY 1",
											relid, pgt_sqltext_literal(PGT_IDENTITY_COMMENT),
											pgt_sqltext_literal(SCOPE_COMMENT)));

	for (int i = 0; i < rows->nrows; i++)
		indexes = lappend_oid(indexes, pgt_spi_oid(rows, i, 1));
	pgt_security_restore(&saved);
	return indexes;
}

/*
 * Are the indexes that we made on the table those that the stage (of a query
 * that the table does not have yet) needs?
 */
bool
pgt_refresh_fits_storage(Oid relid, const PgtStage *stage)
{
	Relation relation = table_open(relid, AccessShareLock);
	TargetInfo *info = pgt_target_get_stage(relation, stage);
	List *needed = NIL;
	List *indexes;
	bool fits = true;

	if (needs_identity_index(stage))
		needed = list_make1_oid(info->index_relid);
	if (stage->nscope > 0)
		needed = list_append_unique_oid(needed, info->scope_index);
	if (OidIsValid(info->index_relid) &&
		pgt_compat_primary_key_index(relation) == info->index_relid &&
		!can_be_primary(relation, stage))
		fits = false;
	for (int i = 0; i < info->nkeys; i++)
		if (info->by_hash && !stage->keys_not_null &&
			TupleDescAttr(RelationGetDescr(relation), info->keys[i].attnum - 1)->attnotnull)
			fits = false;
	fits = fits && !list_member_oid(needed, InvalidOid);
	table_close(relation, NoLock);
	indexes = pgt_refresh_list_indexes(relid);
	return fits && list_difference_oid(indexes, needed) == NIL;
}

/*
 * Takes identity index and replica identity away, so that the table can take
 * the rows of another query. Indexes of the user stay.
 */
void
pgt_refresh_drop_storage(const PgtStreamTable *st)
{
	PgtSecurity saved = pgt_security_become_extension_owner();
	ListCell *lc;

	pgt_spi_execute(
		psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", pgt_sqltext_relation(st->relid)));
	foreach (lc, pgt_refresh_list_indexes(st->relid))
	{
		List *columns = not_null_columns(lfirst_oid(lc));

		pgt_storage_drop_index(st->relid, lfirst_oid(lc));
		drop_not_null(st->relid, columns);
	}
	pgt_security_restore(&saved);
}

/* The index that finds rows of a stage's table, or of the table of its states. The table is locked. */
bool
pgt_storage_has_index(Oid relid, const PgtStage *stage, bool is_state)
{
	Relation relation;
	TargetInfo *info;

	if (!OidIsValid(relid))
		return false;
	relation = table_open(relid, AccessShareLock);
	info = is_state ? pgt_target_get_state(relation, stage) : pgt_target_get_stage(relation, stage);
	table_close(relation, AccessShareLock);
	return (stage->identity == PGT_IDENTITY_SINGLE || OidIsValid(info->index_relid)) &&
		   (is_state || stage->nscope == 0 || OidIsValid(info->scope_index));
}

/* Is everything there that a refresh of the stage looks rows up with? */
bool
pgt_storage_is_complete(const PgtStage *stage)
{
	return !stage->is_missing && pgt_storage_has_index(stage->relid, stage, false) &&
		   (stage->technique != PGT_TECHNIQUE_AGGREGATE ||
			pgt_storage_has_index(stage->state_relid, stage, true));
}

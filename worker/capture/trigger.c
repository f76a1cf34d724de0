/*
 * trigger.c: the capture triggers as objects of the database.
 *
 * They are internal triggers: not dumped, not listed, not touched by DISABLE
 * TRIGGER USER. Each member of a captured tree has its own set per source,
 * whose only argument is the source_id. Functions and arguments tell them
 * apart, not their names. Dropping the extension drops them.
 *
 *   STATEMENT   after insert, update, delete with transition tables (origin
 *               and local role), after truncate (always), and after each row
 *               in replica role only
 *   ROW         after each row and after truncate, always
 *
 * Locks: ShareRowExclusive to create, AccessExclusive to drop, on the member.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "capture_internal.h"
#include "pgt_capture.h"
#include "pgt_extension.h"

/* tg_type of what each trigger of ours fires on. */
typedef struct TriggerKind
{
	const char *function;
	const char *suffix; /* of the name */
	bool row;
	int16 events;
	const char *old_table;
	const char *new_table;
	char enabled; /* pg_trigger.tgenabled as it should be */
	PgtCaptureMethod method;
} TriggerKind;

#define ROW_EVENTS (TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)

static const TriggerKind kinds[] = {
	{"capture_statement", "insert", false, TRIGGER_TYPE_INSERT, NULL, "new_rows",
	 TRIGGER_FIRES_ON_ORIGIN, PGT_CAPTURE_STATEMENT},
	{"capture_statement", "update", false, TRIGGER_TYPE_UPDATE, "old_rows", "new_rows",
	 TRIGGER_FIRES_ON_ORIGIN, PGT_CAPTURE_STATEMENT},
	{"capture_statement", "delete", false, TRIGGER_TYPE_DELETE, "old_rows", NULL,
	 TRIGGER_FIRES_ON_ORIGIN, PGT_CAPTURE_STATEMENT},
	{"capture_truncate", "truncate", false, TRIGGER_TYPE_TRUNCATE, NULL, NULL, TRIGGER_FIRES_ALWAYS,
	 PGT_CAPTURE_STATEMENT},
	{"capture_row", "replica", true, ROW_EVENTS, NULL, NULL, TRIGGER_FIRES_ON_REPLICA,
	 PGT_CAPTURE_STATEMENT},
	{"capture_row", "row", true, ROW_EVENTS, NULL, NULL, TRIGGER_FIRES_ALWAYS, PGT_CAPTURE_ROW},
	{"capture_truncate", "truncate", false, TRIGGER_TYPE_TRUNCATE, NULL, NULL, TRIGGER_FIRES_ALWAYS,
	 PGT_CAPTURE_ROW},
};

List *
pgt_capture_find_tree(Oid relid, LOCKMODE lockmode)
{
	List *tree = find_all_inheritors(relid, lockmode, NULL);

	list_sort(tree, list_oid_cmp);
	return tree;
}

/*
 * A statement on a parent fires the statement triggers of the parent only, and
 * its transition tables do not tell which child a row belongs to. So there must
 * be no parent above the root, nor, with multiple inheritance, beside it.
 */
PgtCaptureMethod
pgt_capture_find_method(List *tree)
{
	ListCell *cell;

	foreach (cell, tree)
	{
		List *parents = pgt_capture_find_parents(lfirst_oid(cell));

		if (list_difference_oid(parents, tree) != NIL)
			return PGT_CAPTURE_ROW;
	}
	return PGT_CAPTURE_STATEMENT;
}

static Oid
find_function(const char *name)
{
	List *qualified = list_make2(makeString(pstrdup(PGT_SCHEMA)), makeString(pstrdup(name)));

	return LookupFuncName(qualified, 0, NULL, false);
}

/* Rows change only in relations that hold rows. */
static bool
is_wanted(const TriggerKind *kind, PgtCaptureMethod method, char relkind)
{
	return kind->method == method && (!kind->row || relkind == RELKIND_RELATION);
}

static bool
is_of_source(const Trigger *trigger, const char *source_id)
{
	return trigger->tgnargs == 1 && strcmp(trigger->tgargs[0], source_id) == 0;
}

/* Same function, same events, same level. */
static bool
is_of_kind(const Trigger *trigger, const TriggerKind *kind)
{
	int16 type = kind->events | (kind->row ? TRIGGER_TYPE_ROW : 0);

	return trigger->tgtype == type && trigger->tgfoid == find_function(kind->function);
}

static const Trigger *
find_trigger(Relation relation, const TriggerKind *kind, const char *source_id)
{
	TriggerDesc *desc = relation->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		const Trigger *trigger = &desc->triggers[i];

		if (is_of_source(trigger, source_id) && is_of_kind(trigger, kind))
			return trigger;
	}
	return NULL;
}

/* Ours, of that source, of whatever kind. */
static List *
list_triggers(Relation relation, const char *source_id)
{
	List *oids = NIL;
	TriggerDesc *desc = relation->trigdesc;
	Oid functions[] = {find_function("capture_statement"), find_function("capture_row"),
					   find_function("capture_truncate")};

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		const Trigger *trigger = &desc->triggers[i];

		if (is_of_source(trigger, source_id) &&
			(trigger->tgfoid == functions[0] || trigger->tgfoid == functions[1] ||
			 trigger->tgfoid == functions[2]))
			oids = lappend_oid(oids, trigger->tgoid);
	}
	return oids;
}

const char *
pgt_capture_check_triggers(Oid member, int64 source_id, PgtCaptureMethod method)
{
	Relation relation = table_open(member, AccessShareLock);
	char *id = psprintf(INT64_FORMAT, source_id);
	const char *reason = NULL;
	int wanted = 0;

	for (int i = 0; i < lengthof(kinds) && reason == NULL; i++)
	{
		const Trigger *trigger;

		if (!is_wanted(&kinds[i], method, relation->rd_rel->relkind))
			continue;
		wanted++;
		trigger = find_trigger(relation, &kinds[i], id);
		if (trigger == NULL)
			reason = psprintf("capture trigger for %s is missing on \"%s\"", kinds[i].suffix,
							  RelationGetRelationName(relation));
		else if (trigger->tgenabled != kinds[i].enabled)
			reason = psprintf("capture trigger for %s on \"%s\" was disabled or enabled by hand",
							  kinds[i].suffix, RelationGetRelationName(relation));
	}
	if (reason == NULL && list_length(list_triggers(relation, id)) != wanted)
		reason = psprintf("\"%s\" has capture triggers of another method",
						  RelationGetRelationName(relation));
	table_close(relation, AccessShareLock);
	return reason;
}

static List *
make_transitions(const TriggerKind *kind)
{
	List *transitions = NIL;

	for (int is_new = 0; is_new < 2; is_new++)
	{
		const char *name = is_new ? kind->new_table : kind->old_table;
		TriggerTransition *transition;

		if (name == NULL)
			continue;
		transition = makeNode(TriggerTransition);
		transition->name = pstrdup(name);
		transition->isNew = is_new;
		transition->isTable = true;
		transitions = lappend(transitions, transition);
	}
	return transitions;
}

static void
create_trigger(Relation relation, const TriggerKind *kind, int64 source_id)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	Oid function = find_function(kind->function);
	ObjectAddress trigger;

	stmt->trigname = psprintf("pgt_capture_" INT64_FORMAT "_%s", source_id, kind->suffix);
	stmt->relation = makeRangeVar(get_namespace_name(RelationGetNamespace(relation)),
								  pstrdup(RelationGetRelationName(relation)), -1);
	stmt->funcname = list_make2(makeString(pstrdup(PGT_SCHEMA)),
								makeString(pstrdup(kind->function)));
	stmt->args = list_make1(makeString(psprintf(INT64_FORMAT, source_id)));
	stmt->row = kind->row;
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = kind->events;
	stmt->transitionRels = make_transitions(kind);
	trigger = CreateTriggerFiringOn(stmt, NULL, RelationGetRelid(relation), InvalidOid, InvalidOid,
									InvalidOid, function, InvalidOid, NULL, true, false,
									kind->enabled);

	/* DROP EXTENSION takes the triggers along without asking for CASCADE. */
	deleteDependencyRecordsForSpecific(TriggerRelationId, trigger.objectId, DEPENDENCY_NORMAL,
									   ProcedureRelationId, function);
	{
		ObjectAddress on = {ProcedureRelationId, function, 0};

		recordDependencyOn(&trigger, &on, DEPENDENCY_AUTO);
	}
}

void
pgt_capture_drop_triggers(Oid member, int64 source_id)
{
	char relkind = get_rel_relkind(member);
	Relation relation;
	List *oids;
	ListCell *cell;

	/* After a restore the number may be that of anything. */
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		return;
	relation = try_table_open(member, AccessShareLock);
	if (relation == NULL)
		return;
	oids = list_triggers(relation, psprintf(INT64_FORMAT, source_id));
	/* Closed before: a trigger is not dropped while its table is open. */
	table_close(relation, NoLock);
	foreach (cell, oids)
	{
		ObjectAddress trigger = {TriggerRelationId, lfirst_oid(cell), 0};

		performDeletion(&trigger, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	}
	if (oids != NIL)
		CommandCounterIncrement();
}

bool
pgt_capture_create_triggers(Oid member, int64 source_id, PgtCaptureMethod method)
{
	Relation relation;
	bool has_some;

	if (pgt_capture_check_triggers(member, source_id, method) == NULL)
		return false;
	relation = table_open(member, ShareRowExclusiveLock);
	has_some = list_triggers(relation, psprintf(INT64_FORMAT, source_id)) != NIL;
	table_close(relation, NoLock);
	if (has_some)
		pgt_capture_drop_triggers(member, source_id);

	relation = table_open(member, NoLock);
	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (is_wanted(&kinds[i], method, relation->rd_rel->relkind))
			create_trigger(relation, &kinds[i], source_id);
	}
	table_close(relation, NoLock);
	CommandCounterIncrement();
	return true;
}

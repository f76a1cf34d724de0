/*
 * publication.c: publications as a filter, with the meaning that pgoutput gives them: what one of
 * them publishes is published; lists of columns must agree.
 *
 * Row filters are refused: pgoutput turns an update whose row enters or leaves the filter
 * into an insert or a delete, and then neither the position, nor the refresh's counts, nor the old
 * image mean what they say.
 *
 * Owns nothing; the relation cache keeps the answers. Runs under the historic snapshot, so that
 * publications count as they were when the change was made.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/partition.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_rel.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "pgtd_filter.h"
#include "pgtd_publication.h"

/* What one publication says of a relation. */
typedef struct Entry
{
	const Publication *publication;
	Oid publish_as; /* the relation itself, or the ancestor it is published through */
	bool has_filter;
	Bitmapset *columns;
} Entry;

bool
pgtd_parse_publications(const char *text, List **publications)
{
	return SplitIdentifierString(pstrdup(text), ',', publications);
}

void
pgtd_check_publications(const List *publications)
{
	ListCell *cell;

	foreach (cell, publications)
	{
		const char *name = lfirst(cell);

		if (!OidIsValid(get_publication_oid(name, true)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("publication \"%s\" does not exist", name),
					 errdetail("Option \"publications\" names it."),
					 errhint("Create it, and mind that changes made before are not in it.")));
	}
}

/* Does the publication have the relation, and through which one? */
static bool
find_entry(Entry *entry, Relation relation, List *ancestors)
{
	const Publication *publication = entry->publication;
	Oid relid = RelationGetRelid(relation);
	Oid schema = RelationGetNamespace(relation);
	Oid ancestor;

	entry->publish_as = relid;
	if (publication->alltables)
	{
		if (publication->pubviaroot && ancestors != NIL)
			entry->publish_as = llast_oid(ancestors);
		return !pgtd_is_own_schema(get_namespace_name(schema));
	}
	ancestor = GetTopMostAncestorInPublication(publication->oid, ancestors, NULL);
	if (OidIsValid(ancestor))
	{
		if (publication->pubviaroot)
			entry->publish_as = ancestor;
		return true;
	}
	return list_member_oid(GetRelationPublications(relid), publication->oid) ||
		   list_member_oid(GetSchemaPublications(schema), publication->oid);
}

/* The attribute numbers of the ancestor's columns in its partition. */
static Bitmapset *
map_columns(const Bitmapset *columns, Oid from, Oid to)
{
	Bitmapset *mapped = NULL;
	int attnum = -1;

	while ((attnum = bms_next_member(columns, attnum)) >= 0)
		mapped = bms_add_member(mapped, get_attnum(to, get_attname(from, attnum, false)));
	return mapped;
}

/* A list that names every column is none. */
static bool
has_all_columns(const Bitmapset *columns, Relation relation)
{
	TupleDesc desc = RelationGetDescr(relation);

	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && !bms_is_member(i + 1, columns))
			return false;
	}
	return true;
}

static void
load_entry(Entry *entry, Relation relation)
{
	HeapTuple tuple = SearchSysCache2(PUBLICATIONRELMAP, ObjectIdGetDatum(entry->publish_as),
									  ObjectIdGetDatum(entry->publication->oid));
	Datum columns;
	bool is_null;

	if (!HeapTupleIsValid(tuple))
		return;
	(void) SysCacheGetAttr(PUBLICATIONRELMAP, tuple, Anum_pg_publication_rel_prqual, &is_null);
	entry->has_filter = !is_null;
	columns = SysCacheGetAttr(PUBLICATIONRELMAP, tuple, Anum_pg_publication_rel_prattrs, &is_null);
	if (!is_null)
		entry->columns = pub_collist_to_bitmapset(NULL, columns, NULL);
	ReleaseSysCache(tuple);

	if (entry->columns != NULL && entry->publish_as != RelationGetRelid(relation))
		entry->columns = map_columns(entry->columns, entry->publish_as, RelationGetRelid(relation));
	if (has_all_columns(entry->columns, relation))
		entry->columns = NULL;
}

static void
report_row_filter(const Entry *entry, Relation relation)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("pg_trickle_decoder does not support row filters"),
			 errdetail("Publication \"%s\" has one for table \"%s.%s\".", entry->publication->name,
					   get_namespace_name(RelationGetNamespace(relation)),
					   RelationGetRelationName(relation)),
			 errhint("Filter in the consumer, or in the query of a stream table; to go on, name "
					 "other publications, or the table in \"exclude_tables\".")));
}

static void
report_different_columns(Relation relation)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("publications have different column lists for table \"%s.%s\"",
						   get_namespace_name(RelationGetNamespace(relation)),
						   RelationGetRelationName(relation)),
					errdetail("Option \"publications\" names more than one that has the table."),
					errhint("Name one of them, or the table in \"exclude_tables\".")));
}

static void
add_actions(PgtdPublished *published, const PublicationActions *actions)
{
	published->insert |= actions->pubinsert;
	published->update |= actions->pubupdate;
	published->delete |= actions->pubdelete;
	published->truncate |= actions->pubtruncate;
}

/* Does a publish something that b does not? */
static bool
is_more(const PgtdPublished *a, const PgtdPublished *b)
{
	return (a->insert && !b->insert) || (a->update && !b->update) || (a->delete &&!b->delete);
}

PgtdPublished
pgtd_find_published(const List *publications, Relation relation)
{
	List *ancestors = relation->rd_rel->relispartition
						  ? get_partition_ancestors(RelationGetRelid(relation))
						  : NIL;
	PgtdPublished published = {0};
	PgtdPublished unfiltered = {0};
	Entry filtered = {0};
	bool is_first = true;
	ListCell *cell;

	if (!is_publishable_relation(relation))
		return published;
	foreach (cell, publications)
	{
		const Publication *publication = GetPublicationByName(lfirst(cell), true);
		Entry entry = {.publication = publication};

		if (publication == NULL || !find_entry(&entry, relation, ancestors))
			continue;
		load_entry(&entry, relation);
		if (!is_first && !bms_equal(entry.columns, published.columns))
			report_different_columns(relation);
		is_first = false;
		published.columns = entry.columns;
		add_actions(&published, &publication->pubactions);
		if (entry.has_filter)
			filtered = entry;
		else
			add_actions(&unfiltered, &publication->pubactions);
	}
	/* As with pgoutput, a filter does not count where another publication has none. */
	if (filtered.publication != NULL && is_more(&published, &unfiltered))
		report_row_filter(&filtered, relation);
	return published;
}

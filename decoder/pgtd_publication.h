/*
 * pgtd_publication.h: which changes of a relation the publications of the option let through.
 */
#ifndef PGTD_PUBLICATION_H
#define PGTD_PUBLICATION_H

#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

typedef struct PgtdPublished
{
	bool insert;
	bool update;
	bool delete;
	bool truncate;
	Bitmapset *columns; /* attribute numbers; NULL: all */
} PgtdPublished;

/* Names as SplitIdentifierString reads them. False when the text is no such list. */
extern bool pgtd_parse_publications(const char *text, List **publications);

/* An error names the first that does not exist. Reads catalogs. */
extern void pgtd_check_publications(const List *publications);

/*
 * What they publish of the relation together, in CurrentMemoryContext; nothing at all where
 * there is no publication with that name, or none has the relation. An error, if they have row
 * filters that count, or different lists of columns.
 */
extern PgtdPublished pgtd_find_published(const List *publications, Relation relation);

#endif /* PGTD_PUBLICATION_H */

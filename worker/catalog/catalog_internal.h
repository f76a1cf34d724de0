/*
 * catalog_internal.h: reading and writing rows of our catalog tables without
 * SQL, for the paths on which every refresh goes.
 *
 * A statement would be planned again whenever search_path or role change, which
 * they do in each refresh. Rights are the caller's business: nothing here
 * checks any. Constraints are not checked either, so only well-formed rows go
 * through here.
 */
#ifndef PGT_CATALOG_INTERNAL_H
#define PGT_CATALOG_INTERNAL_H

#include "postgres.h"

#include "access/htup.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* NULL if the extension does not exist in this database. */
extern Relation pgt_catalog_open(const char *name, LOCKMODE lockmode);

/*
 * Errors unless the table has so many columns: after a new library was installed
 * and before ALTER EXTENSION UPDATE it has those of the version before.
 */
extern void pgt_catalog_check_columns(Relation relation, int count);

/* Called for each row; the tuple is gone when it returns. False ends the scan. */
typedef bool (*PgtCatalogVisitor)(Relation relation, HeapTuple tuple, void *arg);

/*
 * Visits the rows whose column equals key; the newest committed state and this
 * transaction's own, or what snapshot sees if it is not NULL. eq: F_INT8EQ or F_OIDEQ. index
 * NULL: the whole table.
 */
extern void pgt_catalog_scan(Relation relation, const char *index, AttrNumber column, Oid eq,
							 Datum key, Snapshot snapshot, PgtCatalogVisitor visit, void *arg);

/*
 * The newest version of the one row with this key, locked against writers until
 * the end of the transaction (waits for them); NULL if there is none.
 */
extern HeapTuple pgt_catalog_lock_row(Relation relation, const char *index, Datum key);

/* Field access; null gives 0, false or NULL. */
extern int64 pgt_catalog_int64(Relation relation, HeapTuple tuple, AttrNumber column);
extern Oid pgt_catalog_oid(Relation relation, HeapTuple tuple, AttrNumber column);
extern bool pgt_catalog_bool(Relation relation, HeapTuple tuple, AttrNumber column);
extern double pgt_catalog_float8(Relation relation, HeapTuple tuple, AttrNumber column,
								 double null);
extern char *pgt_catalog_text(Relation relation, HeapTuple tuple, AttrNumber column);

/* NULL-able text as an argument of a statement. */
extern Datum pgt_catalog_text_datum(const char *text, bool *isnull);

#endif /* PGT_CATALOG_INTERNAL_H */

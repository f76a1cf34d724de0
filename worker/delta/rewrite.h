/*
 * rewrite.h: what the files rewrite*.c share.
 */
#ifndef REWRITE_H
#define REWRITE_H

#include "delta_internal.h"

extern RangeTblEntry *pgt_rewrite_make_entry(Query *subquery, const char *alias);
extern Query *pgt_rewrite_union_all(List *arms, const SetOperationStmt *like);
extern Query *pgt_rewrite_setop(Query *query);
extern Query *pgt_rewrite_grouping_sets(Query *query);

#endif /* REWRITE_H */

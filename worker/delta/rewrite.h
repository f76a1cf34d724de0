/*
 * rewrite.h: what the files rewrite*.c share.
 */
#ifndef REWRITE_H
#define REWRITE_H

#include "delta_internal.h"

extern RangeTblEntry *pgt_rewrite_make_entry(Query *subquery, const char *alias);
extern Query *pgt_rewrite_union_all(List *arms, const SetOperationStmt *like);
extern Query *pgt_rewrite_target_srfs(Query *query);
extern bool pgt_rewrite_has_srfs_above(const Query *query);
extern void pgt_rewrite_function_joins(Query *query, Node *node);
extern void pgt_rewrite_rows(Query *query);
extern void pgt_rewrite_null_equality(Node *node);
extern bool pgt_rewrite_is_used_whole(Query *query, int rtindex);
extern void pgt_rewrite_outer_joins(Query *query);
extern Query *pgt_rewrite_setop(Query *query);
extern Query *pgt_rewrite_grouping_sets(Query *query);

#endif /* REWRITE_H */

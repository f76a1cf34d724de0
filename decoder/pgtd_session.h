/*
 * pgtd_session.h: what a decoding session and a snapshot by SQL have in common: options, encoding,
 * cache, and settings that are the same for all.
 */
#ifndef PGTD_SESSION_H
#define PGTD_SESSION_H

#include "pgtd_state.h"

/*
 * A state in a child of CurrentMemoryContext, with its memory contexts and the options parsed;
 * needs no transaction. The list is of DefElem.
 */
extern PgtdState *pgtd_make_session(List *options);
extern void pgtd_free_session(PgtdState *state);

/* What needs catalogs; in a transaction of its own, if there is none. */
extern void pgtd_load_session(PgtdState *state);

/*
 * What output functions and the names of types depend on, set to what it is in every session;
 * returns the level to be undone with AtEOXact_GUC.
 */
extern int pgtd_enter_settings(const PgtdState *state);

/* Can the output be sent as text of this database? */
extern bool pgtd_is_database_text(const PgtdState *state);

/* Raises the error of a row or message larger than max_message_bytes. */
extern void pgtd_report_oversize(const PgtdState *state);

/* A buffer that one large row has blown up does not stay so. */
extern void pgtd_shrink_buffer(StringInfo buf);

/* Says in errors which table and column the row at hand is of; arg is a PgtdRow. */
extern void pgtd_add_row_context(void *arg);

#endif /* PGTD_SESSION_H */

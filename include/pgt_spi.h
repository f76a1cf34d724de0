/*
 * pgt_spi.h: the only door to SPI.
 *
 * Catalog files use pgt_spi_query with kept statements; delta and refresh
 * prepare plans that read under one registered snapshot and send their rows to
 * a DestReceiver, so that no result is copied twice.
 */
#ifndef PGT_SPI_H
#define PGT_SPI_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/plannodes.h"
#include "tcop/dest.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

/* A result of pgt_spi_query, in the memory context current at the call. */
typedef struct PgtRows
{
	int nrows;
	TupleDesc desc;
	HeapTuple *rows;
} PgtRows;

/* An input relation of a plan that exists only in memory (an ENR). */
typedef struct PgtInput
{
	const char *name; /* as the SQL text names it */
	TupleDesc desc;
	Tuplestorestate *rows; /* may be NULL while preparing */
	double estimate;	   /* rows the planner shall believe in */
} PgtInput;

typedef struct PgtPlan PgtPlan; /* a kept plan; freed by pgt_spi_free_plan */

/*
 * Runs one statement with a fresh snapshot that sees this transaction's own
 * writes. The plan is kept per backend under the address of sql, so sql must
 * be a string literal. Types are those of the parameters; nulls may be NULL
 * when no parameter is null. Results are copied to the caller's context.
 */
extern PgtRows *pgt_spi_query(const char *sql, int nargs, const Oid *types, const Datum *values,
							  const bool *nulls);

/* The same for text built at run time; nothing is kept. */
extern PgtRows *pgt_spi_select(const char *sql);
/* Runs a command (DDL or DML) and returns the number of rows it processed. */
extern uint64 pgt_spi_execute(const char *sql);

/* Field access; rows start at 0, columns at 1. Null gives NULL, 0 or false. */
extern Datum pgt_spi_datum(const PgtRows *rows, int row, int column, bool *isnull);
extern char *pgt_spi_text(const PgtRows *rows, int row, int column);
extern int64 pgt_spi_int64(const PgtRows *rows, int row, int column);
extern bool pgt_spi_bool(const PgtRows *rows, int row, int column);
extern Oid pgt_spi_oid(const PgtRows *rows, int row, int column);

/*
 * Prepares and keeps a SELECT over tables and inputs; it is planned at
 * pgt_spi_plan_now or at the first run, under the settings in force then.
 * cursor_options: CURSOR_OPT_PARALLEL_OK or 0.
 */
extern PgtPlan *pgt_spi_prepare(const char *sql, const PgtInput *inputs, int ninputs,
								int cursor_options);
extern PlannedStmt *pgt_spi_plan_now(PgtPlan *plan, const PgtInput *inputs, int ninputs);
/* False if something that it reads has changed: its text would be read, and planned, again. */
extern bool pgt_spi_plan_is_valid(PgtPlan *plan);
/*
 * EXPLAIN's text of a kept plan, and the numbers of rows that the planner
 * expects and (with analyze, which runs it) that came. Inputs need their rows,
 * if empty ones.
 */
extern char *pgt_spi_explain(PgtPlan *plan, const PgtInput *inputs, int ninputs, Snapshot snapshot,
							 bool analyze, double *estimated, int64 *actual);
extern void pgt_spi_free_plan(PgtPlan *plan);
/* Memory that a planned one holds. */
extern Size pgt_spi_plan_size(PgtPlan *plan);
extern TupleDesc pgt_spi_plan_desc(PgtPlan *plan);

/*
 * Runs a kept plan under the given snapshot (own writes up to now are visible,
 * nobody else's later ones) and sends its rows to dest. Returns the number of
 * rows. Rights on the tables are not checked here: the caller has done it, by
 * what the user wrote (statements name the tables below views).
 */
extern uint64 pgt_spi_run(PgtPlan *plan, const PgtInput *inputs, int ninputs, Snapshot snapshot,
						  DestReceiver *dest);

#endif /* PGT_SPI_H */

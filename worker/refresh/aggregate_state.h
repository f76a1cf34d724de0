/*
 * aggregate_state.h: one aggregate call and one state of it (aggregate_state.c).
 */
#ifndef PGT_AGGREGATE_STATE_H
#define PGT_AGGREGATE_STATE_H

#include "postgres.h"

#include "nodes/execnodes.h"

#include "pgt_delta.h"

/* One aggregate call, with all that is needed to run it. */
typedef struct AggregateCall
{
	const PgtAggregate *aggregate;
	FmgrInfo transition;
	FmgrInfo inverse;
	FmgrInfo final;
	FmgrInfo serialize;
	FmgrInfo deserialize;
	FmgrInfo combine;
	bool has_final;
	bool is_internal; /* stored through serialize */
	int nfinal_args;
	Oid state_type;
	int16 state_len;
	bool state_byval;
	Datum initial;
	bool initial_isnull;
	int16 result_len;
	bool result_byval;
} AggregateCall;

typedef struct AggregateState
{
	Datum value;
	bool isnull;
	int64 count; /* transitions in it */
} AggregateState;

/* Where the functions of aggregates run. */
typedef struct AggregateRun
{
	WindowAggState *window;		 /* what aggregate functions take for their node */
	MemoryContext state_context; /* of all states, until the end */
	MemoryContext call_context;	 /* the caller resets it per row */
} AggregateRun;

/* Checks the right to execute the aggregate; errors as the executor's. */
extern void pgt_aggregate_prepare(AggregateCall *call, const PgtAggregate *aggregate);

/* The state before any row; frees nothing. */
extern void pgt_aggregate_start(AggregateRun *run, const AggregateCall *call,
								AggregateState *state);

/* One row comes. */
extern void pgt_aggregate_add(AggregateRun *run, AggregateCall *call, AggregateState *state,
							  const Datum *args, const bool *isnull);

/* One row goes; false: the state cannot be inverted and has to be folded anew. */
extern bool pgt_aggregate_remove(AggregateRun *run, AggregateCall *call, AggregateState *state,
								 const Datum *args, const bool *isnull);

/* From and to what a state table holds. */
extern void pgt_aggregate_load(AggregateRun *run, AggregateCall *call, AggregateState *state,
							   Datum value, bool isnull);
extern void pgt_aggregate_serialize(AggregateRun *run, AggregateCall *call,
									const AggregateState *state, Datum *value, bool *isnull);

/* The aggregate's result, in call_context. */
extern Datum pgt_aggregate_final(AggregateRun *run, AggregateCall *call,
								 const AggregateState *state, bool *isnull);

#endif /* PGT_AGGREGATE_STATE_H */

/*
 * pgt_sla_state.h: what the scheduler knows of a stream table's SLA (pgt_slas).
 * Module: sched
 */
#ifndef PGT_SLA_STATE_H
#define PGT_SLA_STATE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "pgt_sla.h"

typedef struct PgtSlaState
{
	PgtTier tier; /* as assigned */
	char tier_reason[PGT_SLA_REASON];
	TimestampTz tier_since;
	bool breached;
	PgtSlaStats stats;
	PgtSlaRecord record;
	TimestampTz written_at;
} PgtSlaState;

/* False if there is none; numbers of another release are as new. */
extern bool pgt_sla_state_find(int64 pgt_id, PgtSlaState *state);
/* Nothing if the stream table was dropped. */
extern void pgt_sla_state_write(int64 pgt_id, const PgtSlaState *state);
/* Numbers of a column; all 0 if there are not as many. */
extern void pgt_sla_state_read_numbers(Datum array, double *numbers, int count);

#endif /* PGT_SLA_STATE_H */

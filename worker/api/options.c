/*
 * options.c: arguments of the lifecycle functions that are names or lengths.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "pgt_schedule.h"
#include "pgt_shmem.h"
#include "pgt_sla.h"

#include "api_internal.h"

static void
refuse_schedule(const char *text, const PgtParseError *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid schedule \"%s\"", text),
			 error->position > 0
				 ? errdetail("At character %d: %s.", error->position, error->message)
				 : errdetail("Reason: %s.", error->message),
			 errhint("%s", PGT_SCHEDULE_HINT)));
}

/* interval_in, with our words if the text is no interval. */
static Interval *
parse_interval(const char *text)
{
	MemoryContext caller = CurrentMemoryContext;
	Interval *volatile interval = NULL;

	PG_TRY();
	{
		interval = DatumGetIntervalP(DirectFunctionCall3(
			interval_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(error);
	}
	PG_END_TRY();
	return interval;
}

char *
pgt_option_schedule(const char *text)
{
	PgtSchedule schedule;
	PgtParseError error = {{0}};
	Interval *interval;

	switch (pgt_schedule_parse(text, &schedule, &error))
	{
		case PGT_SCHEDULE_PARSED:
			break;
		case PGT_SCHEDULE_WRONG:
			refuse_schedule(text, &error);
			break;
		case PGT_SCHEDULE_ASK_INTERVAL:
			interval = parse_interval(text);
			if (interval == NULL)
			{
				strlcpy(error.message, "not a schedule of any form", sizeof(error.message));
				refuse_schedule(text, &error);
			}
			else if (!pgt_schedule_from_interval(interval->month, interval->day, interval->time,
												 &schedule, &error))
				refuse_schedule(text, &error);
			break;
	}
	return schedule.kind == PGT_SCHEDULE_CALCULATED ? NULL : pstrdup(schedule.text);
}

/* One of the words, in its own spelling. */
static const char *
choose_word(const char *option, const char *text, const char *const *words, int nwords,
			const char *hint)
{
	for (int i = 0; i < nwords; i++)
		if (pg_strcasecmp(text, words[i]) == 0)
			return words[i];
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid %s \"%s\"", option, text), errhint("%s", hint)));
	return NULL; /* not reached */
}

const char *
pgt_option_diamond_consistency(const char *text)
{
	static const char *const words[] = {"aligned", "atomic", "none"};

	return choose_word("diamond_consistency", text, words, lengthof(words),
					   "Use 'aligned', 'atomic' or 'none'.");
}

const char *
pgt_option_identity(const char *text)
{
	static const char *const words[] = {"full", "key"};

	return choose_word("identity", text, words, lengthof(words), "Use 'full' or 'key'.");
}

int64
pgt_option_sla(const Interval *interval)
{
	const char *detail = NULL;
	int64 length;

	if (interval->month != 0)
		detail = "Months have no fixed length.";
	else if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &length) ||
			 pg_add_s64_overflow(length, interval->time, &length) || length > PGT_SLA_MOST)
		detail = "It is longer than ten years.";
	else if (length < 0)
		detail = "It is negative.";
	else if (length != 0 && length < PGT_SLA_LEAST)
		detail = "It is shorter than 100 ms.";
	if (detail != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid sla"),
						errdetail("%s", detail),
						errhint("Give an interval such as '30 seconds', or '0' for none.")));
	return length / 1000;
}

const char *
pgt_option_tier(const char *text)
{
	PgtTier tier;

	if (pg_strcasecmp(text, "auto") == 0)
		return NULL;
	if (!pgt_tier_parse(text, &tier))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid tier \"%s\"", text),
				 errhint("Use 'hot', 'warm', 'cold' or 'frozen', or 'auto' to leave it to the "
						 "scheduler.")));
	return pgt_tier_name(tier);
}

bool
pgt_option_paused(const char *text)
{
	static const char *const words[] = {"ACTIVE", "SUSPENDED"};

	return choose_word("status", text, words, lengthof(words),
					   "Use 'ACTIVE' or 'SUSPENDED'; the other states come by themselves.") ==
		   words[1];
}

void
pgt_option_warn_scheduler(void)
{
	static bool warned = false;

	if (warned || pgt_shmem_available())
		return;
	warned = true;
	ereport(
		WARNING,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg(
			 "stream tables are not refreshed by themselves, because the scheduler is not loaded"),
		 errhint(
			 "Add \"shared_preload_libraries = 'pg_trickle'\" to postgresql.conf and restart the server; until then use pgtrickle.refresh_stream_table().")));
}

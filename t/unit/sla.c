/*
 * sla.c: tiers, what a measured gap makes of them, and what cannot be met. Time is made up here.
 *
 * link: worker/policy/sla.c worker/policy/ready.c
 */
#include <stdint.h>

#include "pgt_sla.h"
#include "pgt_test.h"

#define SECOND INT64_C(1000000)
#define NOW (INT64_C(848620800) * SECOND) /* in 2026 */
#define SLA (30 * SECOND)

/* A refresh of that gap every ten seconds; the wait is what the second itself does not take. */
static PgtSlaVerdict
cycle(PgtSlaStats *stats, PgtTier tier, int64_t gap, int64_t *now)
{
	PgtSlaCycle measured = {.gap = gap, .queue_wait = gap / 100, .duration = gap / 50};

	*now += 10 * SECOND;
	pgt_sla_note_cycle(stats, &measured, SLA);
	return pgt_sla_reassign(stats, SLA, 0, tier, *now);
}

static PgtTier
cycles(PgtSlaStats *stats, PgtTier tier, int64_t gap, int count, int64_t *now)
{
	for (int i = 0; i < count; i++)
		tier = cycle(stats, tier, gap, now).tier;
	return tier;
}

static PgtSlaStats
measured(int64_t wait, int64_t duration, int count)
{
	PgtSlaStats stats = {{0}};
	PgtSlaCycle one = {.gap = wait + duration, .queue_wait = wait, .duration = duration};

	for (int i = 0; i < count; i++)
		pgt_sla_note_cycle(&stats, &one, SLA);
	return stats;
}

static void
test_tiers(void)
{
	PgtTier tier = PGT_TIER_FROZEN;
	char text[PGT_SLA_LENGTH_TEXT];

	ok(pgt_tier_parse("hot", &tier) && tier == PGT_TIER_HOT, "hot is a tier");
	ok(pgt_tier_parse("Frozen", &tier) && tier == PGT_TIER_FROZEN, "whatever the case");
	ok(!pgt_tier_parse("tepid", &tier) && tier == PGT_TIER_FROZEN, "tepid is none");
	ok(!pgt_tier_parse("", &tier), "nor is nothing");
	for (int i = PGT_TIER_HOT; i <= PGT_TIER_FROZEN; i++)
		ok(pgt_tier_parse(pgt_tier_name((PgtTier) i), &tier) && (int) tier == i, "there and back");
	is_int(pgt_tier_interval(PGT_TIER_HOT, 7), 7, "hot: the interval itself");
	is_int(pgt_tier_interval(PGT_TIER_WARM, 7), 14, "warm: twice");
	is_int(pgt_tier_interval(PGT_TIER_COLD, 7), 70, "cold: ten times");
	is_int(pgt_tier_interval(PGT_TIER_FROZEN, 7), PGT_SLA_NEVER, "frozen: never");
	is_int(pgt_tier_interval(PGT_TIER_COLD, INT64_MAX / 2), PGT_SLA_NEVER, "no overflow");

	is_str(pgt_sla_length_text(3210, text), "3.2 ms", "length: some ms");
	is_str(pgt_sla_length_text(250000, text), "250 ms", "length: ms");
	is_str(pgt_sla_length_text(999900, text), "1 s", "length: nearly a second");
	is_str(pgt_sla_length_text(41234567, text), "41.2 s", "length: seconds");
	is_str(pgt_sla_length_text(30 * SECOND, text), "30 s", "length: whole seconds");
	is_str(pgt_sla_length_text(300 * SECOND, text), "5 min", "length: minutes");
	is_str(pgt_sla_length_text(5400 * 3 * SECOND, text), "4.5 h", "length: hours");
	is_str(pgt_sla_length_text(86400 * 90 * SECOND, text), "90 d", "length: days");
	is_str(pgt_sla_length_text(0, text), "0 ms", "length: none");
}

static void
test_stats(void)
{
	PgtSlaStats stats = {{0}};

	is_int(pgt_sla_percentile(&stats, PGT_SLA_GAP, 0.95), -1, "nothing measured, no percentile");
	for (int i = 1; i <= 20; i++)
	{
		PgtSlaCycle one = {.gap = i * SECOND, .queue_wait = -5, .duration = i};

		pgt_sla_note_cycle(&stats, &one, 18 * SECOND);
	}
	is_int(pgt_sla_percentile(&stats, PGT_SLA_GAP, 0.5), 10 * SECOND, "p50 of 20");
	is_int(pgt_sla_percentile(&stats, PGT_SLA_GAP, 0.95), 19 * SECOND, "p95 of 20");
	is_int(pgt_sla_percentile(&stats, PGT_SLA_GAP, 0.99), 20 * SECOND, "p99 of 20");
	is_int(pgt_sla_percentile(&stats, PGT_SLA_QUEUE_WAIT, 0.99), 0, "no length is negative");
	is_int(pgt_sla_percentile(&stats, PGT_SLA_DURATION, 1), 20, "microseconds are kept");
	is_int(pgt_sla_count_breaches(&stats), 2, "two were over 18 s");
	for (int i = 0; i < PGT_SLA_CYCLES; i++)
		pgt_sla_note_cycle(&stats, &(PgtSlaCycle){.gap = 3 * SECOND}, 18 * SECOND);
	is_int(pgt_sla_count_cycles(&stats), PGT_SLA_CYCLES, "so many are remembered");
	is_int(pgt_sla_percentile(&stats, PGT_SLA_GAP, 1), 3 * SECOND, "older ones are forgotten");
	is_int(pgt_sla_count_breaches(&stats), 0, "one in time ends the row of breaches");
}

static void
test_when(void)
{
	PgtSlaTerms terms = {.sla = SLA, .queue_wait = SECOND, .forecast = 2 * SECOND};
	int64_t cold;
	PgtUrgency queued = {NOW, SECOND / 10, 2 * SECOND, true};
	PgtUrgency fresh = {NOW + SECOND, SECOND, 2 * SECOND, true};

	is_int(pgt_sla_deadline(NOW, SLA), NOW + SLA, "a change has until the SLA is over");
	is_int(pgt_sla_deadline(0, SLA), PGT_SLA_NEVER, "no change, no deadline");
	is_int(pgt_sla_deadline(NOW, 0), PGT_SLA_NEVER, "no SLA, no deadline");
	is_int(pgt_sla_start(&terms, PGT_TIER_HOT, NOW), NOW, "hot begins at once");
	is_int(pgt_sla_start(&terms, PGT_TIER_WARM, NOW), NOW + 12750000, "warm after half the slack");
	cold = pgt_sla_start(&terms, PGT_TIER_COLD, NOW);
	is_int(cold, NOW + 20400000, "cold after four fifths");
	ok(cold + terms.queue_wait + terms.forecast < pgt_sla_deadline(NOW, SLA), "and still in time");
	is_int(pgt_sla_start(&terms, PGT_TIER_FROZEN, NOW), PGT_SLA_NEVER, "frozen never begins");
	is_int(pgt_sla_start(&terms, PGT_TIER_HOT, 0), PGT_SLA_NEVER, "nor does any without a change");
	terms.forecast = 40 * SECOND;
	is_int(pgt_sla_start(&terms, PGT_TIER_COLD, NOW), NOW, "no slack: at once");
	terms.sla = PGT_SLA_MOST;
	ok(pgt_sla_start(&terms, PGT_TIER_COLD, NOW) > NOW, "ten years do not overflow");

	is_int(pgt_sla_inherit(0, 0, SECOND), 0, "nothing to inherit");
	is_int(pgt_sla_inherit(0, SLA, 2 * SECOND), 28 * SECOND, "what the consumer leaves");
	is_int(pgt_sla_inherit(20 * SECOND, SLA, 2 * SECOND), 20 * SECOND, "its own is tighter");
	is_int(pgt_sla_inherit(pgt_sla_inherit(0, SLA, 2 * SECOND), 15 * SECOND, SECOND), 14 * SECOND,
		   "the tightest of two consumers");
	is_int(pgt_sla_inherit(0, SECOND, 5 * SECOND), PGT_SLA_TIGHTEST, "never nothing");

	ok(pgt_sla_urgency(NOW, NOW - 10 * SECOND, 5 * SECOND, SLA) == 0.5, "urgency: age in SLAs");
	ok(pgt_sla_urgency(NOW, NOW + 10 * SECOND, 15 * SECOND, SLA) == 0.5, "none is from the future");
	ok(pgt_sla_urgency(NOW, NOW - SECOND, 0, 1) == 10, "an SLA of nothing does not take all");
	ok(pgt_sla_urgency_without(5) < 1, "without an SLA: makes way for one that is about to break");
	ok(pgt_sla_urgency_without(5) > pgt_sla_urgency_without(4), "in order among themselves");
	ok(pgt_sla_urgency_without(200) > 2, "and not for ever");

	ok(pgt_sla_priority(&queued, NOW) < pgt_sla_priority(&fresh, NOW + SECOND),
	   "a fresh one first");
	ok(pgt_sla_priority(&queued, NOW + 2 * SECOND) > pgt_sla_priority(&fresh, NOW + 2 * SECOND),
	   "what waits in a queue becomes more urgent");
	fresh.has_sla = false;
	ok(pgt_sla_priority(&fresh, NOW + 10 * SECOND) < 1, "without an SLA, too, but slowly");
}

static void
test_assign(void)
{
	PgtSlaStats stats = {{0}};
	PgtSlaVerdict verdict = pgt_sla_assign(&stats, SLA, 0, 0);

	is_int(verdict.tier, PGT_TIER_HOT, "nothing measured: hot");
	is_str(verdict.reason, "nothing was measured yet", "and says so");
	stats = measured(SECOND, SECOND, 5);
	verdict = pgt_sla_assign(&stats, SLA, 0, 0);
	is_int(verdict.tier, PGT_TIER_COLD, "hardly any work: cold");
	is_str(verdict.reason, "predicted to take 23.2 s of 30 s", "because it has time");
	is_int(pgt_sla_assign(&stats, SLA, 0, 8 * SECOND).tier, PGT_TIER_WARM, "a queue: warm");
	is_int(pgt_sla_assign(&stats, SLA, 0, 25 * SECOND).tier, PGT_TIER_HOT, "a long one: hot");
	is_int(pgt_sla_assign(&stats, SLA, SECOND, 20 * SECOND).tier, PGT_TIER_COLD,
		   "an interval of a second is waited for at most");
	stats = measured(4 * SECOND, 4 * SECOND, 5);
	is_int(pgt_sla_assign(&stats, SLA, 0, 0).tier, PGT_TIER_WARM,
		   "a wait that was measured counts");
	stats = measured(4 * SECOND, 60 * SECOND, 5);
	is_int(pgt_sla_assign(&stats, SLA, 0, 0).tier, PGT_TIER_HOT, "hopeless: hot");
	for (int64_t wait = 0; wait < SLA; wait += SECOND / 2)
	{
		PgtSlaTerms terms = {.sla = SLA, .queue_wait = wait, .forecast = SECOND};

		stats = measured(wait, SECOND, 5);
		verdict = pgt_sla_assign(&stats, SLA, 0, 0);
		if (verdict.tier != PGT_TIER_HOT && pgt_sla_predict_gap(&terms, verdict.tier) > 24 * SECOND)
			ok(false, "a tier other than hot leaves a fifth of the SLA");
	}
	is_int(pgt_sla_backlog(12 * SECOND, 4), 3 * SECOND, "workers share what is queued");
	is_int(pgt_sla_backlog(12 * SECOND, 0), 12 * SECOND, "the coordinator counts as one");
}

/* The promise: an SLA of 30 s, a delay that makes it 41.2 s, and within 3 cycles it is warmer. */
static void
test_promotion(void)
{
	PgtSlaStats stats = {{0}};
	int64_t now = NOW;
	PgtTier tier = cycles(&stats, PGT_TIER_COLD, 25 * SECOND, 20, &now);
	PgtSlaVerdict verdict;

	is_int(tier, PGT_TIER_COLD, "in time: stays cold");
	is_int(cycles(&stats, tier, 41200000, 2, &now), PGT_TIER_COLD, "two breaches: not yet");
	verdict = cycle(&stats, tier, 41200000, &now);
	ok(verdict.changed, "the third is one too many");
	is_int(verdict.tier, PGT_TIER_WARM, "it goes up one tier");
	is_str(verdict.reason, "missed the SLA in 3 cycles in a row: 41.2 s of 30 s", "and says why");
	is_int(cycles(&stats, PGT_TIER_WARM, 41200000, 2, &now), PGT_TIER_WARM, "counting starts anew");
	is_int(cycles(&stats, PGT_TIER_WARM, 41200000, 1, &now), PGT_TIER_HOT, "then the next tier");
	verdict = cycle(&stats, PGT_TIER_HOT, 41200000, &now);
	ok(!verdict.changed && verdict.reason[0] == '\0', "nothing is hotter than hot");
	is_int(cycles(&stats, PGT_TIER_HOT, 41200000, 9, &now), PGT_TIER_HOT, "however often");
	is_int(cycles(&stats, PGT_TIER_FROZEN, 41200000, 9, &now), PGT_TIER_FROZEN, "frozen stays so");

	stats = (PgtSlaStats){{0}};
	for (int i = 0; i < 30; i++)
		tier = cycles(&stats, PGT_TIER_WARM, i % 3 == 2 ? SLA : SLA + 1, 1, &now);
	is_int(tier, PGT_TIER_WARM, "two in a row, again and again, are not three");
}

static void
test_demotion(void)
{
	PgtSlaStats stats = {{0}};
	int64_t now = NOW;
	PgtSlaVerdict verdict;
	PgtTier tier;

	is_int(cycles(&stats, PGT_TIER_HOT, 2 * SECOND, 9, &now), PGT_TIER_HOT, "nine: not for long");
	verdict = cycle(&stats, PGT_TIER_HOT, 2 * SECOND, &now);
	is_int(verdict.tier, PGT_TIER_WARM, "the tenth goes down one tier");
	is_str(verdict.reason, "took under half of the SLA in 10 cycles in a row: 2 s of 30 s", "why");
	is_int(cycles(&stats, PGT_TIER_WARM, 15 * SECOND, 50, &now), PGT_TIER_WARM,
		   "half is not under half");

	/* Ten cycles a second: a minute passes between two changes all the same. */
	stats = (PgtSlaStats){{0}};
	pgt_sla_note_tier(&stats, now);
	tier = PGT_TIER_HOT;
	for (int i = 0; i < 599; i++)
	{
		now -= 10 * SECOND - SECOND / 10;
		tier = cycles(&stats, tier, SECOND, 1, &now);
	}
	is_int(tier, PGT_TIER_HOT, "no change in the first minute after one");
	tier = cycles(&stats, tier, SECOND, 1, &now);
	is_int(tier, PGT_TIER_WARM, "then one");
	for (int i = 0; i < 599; i++)
	{
		now -= 10 * SECOND - SECOND / 10;
		tier = cycles(&stats, tier, SECOND, 1, &now);
	}
	is_int(tier, PGT_TIER_WARM, "and none for another minute");

	/* The clock is put back by a day: a minute, not a day. */
	now -= 86400 * SECOND;
	tier = cycles(&stats, tier, SECOND, 6, &now);
	is_int(tier, PGT_TIER_WARM, "a clock that was put back: waits");
	tier = cycles(&stats, tier, SECOND, 1, &now);
	is_int(tier, PGT_TIER_COLD, "for a minute");

	/* Under half of the SLA, but the next tier would not do: p95 has the breaches before. */
	stats = measured(20 * SECOND, 5 * SECOND, 4);
	tier = cycles(&stats, PGT_TIER_HOT, SECOND, 20, &now);
	is_int(tier, PGT_TIER_HOT, "waits of lately speak against a lazier tier");
	tier = cycles(&stats, tier, SECOND, 12, &now);
	is_int(tier, PGT_TIER_WARM, "until they are forgotten");
}

/* What a real[] makes of the numbers: nothing that matters is lost. */
static void
test_storing(void)
{
	PgtSlaStats stats = measured(1234567, 7654321, 5);
	int64_t now = NOW + 1799 * SECOND;

	pgt_sla_note_tier(&stats, now);
	for (int i = 0; i < PGT_SLA_STATS_SIZE; i++)
		stats.values[i] = (float) stats.values[i];
	is_int(pgt_sla_percentile(&stats, PGT_SLA_DURATION, 0.5) / 10, 765432, "a length survives");
	now -= 10 * SECOND;
	is_int(cycles(&stats, PGT_TIER_HOT, SECOND, 6, &now), PGT_TIER_HOT, "a time does, too");
}

static void
test_feasibility(void)
{
	char detail[PGT_SLA_DETAIL];
	double five = 0;

	ok(pgt_sla_utilisation(0, SECOND, 0) == 0, "no SLA keeps nobody busy");
	ok(pgt_sla_utilisation(SLA, 5 * SECOND, 0) == 0.2, "5 s in every 25");
	ok(pgt_sla_utilisation(SLA, 5 * SECOND, 50 * SECOND) == 0.1, "changes come more seldom");
	ok(pgt_sla_utilisation(SLA, 5 * SECOND, SECOND) == 0.2, "or more often, which is no matter");
	ok(pgt_sla_utilisation(SLA, 100 * SECOND, 0) == 1, "a worker for itself, not more");
	for (int i = 0; i < 5; i++)
		five += pgt_sla_utilisation(SLA, SLA * 22 / 122, 0);
	is_int(pgt_sla_check(SLA, 5 * SECOND, 6 * SECOND, 0.8, 1, detail), PGT_SLA_FEASIBLE, "can be");
	is_str(detail, "", "nothing to say then");
	is_int(pgt_sla_check(SLA, SECOND, SECOND, five, 1, detail), PGT_SLA_TOO_FEW_WORKERS, "too few");
	is_str(detail, "All SLAs together need 1.4 workers, 1 is available.", "how many");
	is_int(pgt_sla_check(SLA, SECOND, SECOND, five, 2, detail), PGT_SLA_FEASIBLE, "enough");
	pgt_sla_check(SLA, SECOND, SECOND, 1.601, 2, detail);
	is_str(detail, "All SLAs together need 2.1 workers, 2 are available.", "never 2.0 of 2");
	is_int(pgt_sla_check(SLA, 16 * SECOND, 16 * SECOND, 0, 1, detail), PGT_SLA_TOO_SHORT, "short");
	ok(strstr(detail, " 16 s") != NULL, "what a refresh takes");
	is_int(pgt_sla_check(SLA, 14 * SECOND, 31 * SECOND, 0, 1, detail), PGT_SLA_PATH_TOO_LONG,
		   "its upstreams alone take longer");
	ok(strstr(detail, " 31 s") != NULL, "what they take");
	is_int(pgt_sla_check(0, SLA, SLA, 9, 1, detail), PGT_SLA_FEASIBLE, "no SLA is always met");
}

int
main(void)
{
	test_tiers();
	test_stats();
	test_when();
	test_assign();
	test_promotion();
	test_demotion();
	test_storing();
	test_feasibility();
	return test_done();
}

/*
 * retry.c: the class of each kind of SQLSTATE, waits and suspension.
 *
 * link: worker/policy/retry.c
 */
#include "pgt_retry.h"
#include "pgt_test.h"

static PgtRetry
decide(const char *sqlstate, int attempt, int counted_before, double random)
{
	PgtFailure failure = {.sqlstate = sqlstate,
						  .attempt = attempt,
						  .counted_before = counted_before,
						  .max_counted = 5,
						  .random = random};

	return pgt_retry_decide(&failure);
}

static void
test_classes(void)
{
	static const struct
	{
		const char *sqlstate;
		const char *class_name;
	} cases[] = {
		{"40001", "transient"}, {"40P01", "transient"},	 {"55P03", "transient"},
		{"53100", "transient"}, {"53200", "transient"},	 {"58030", "transient"},
		{"08006", "transient"}, {"25006", "transient"},	 {"55006", "transient"},
		{"22012", "data"},		{"23505", "data"},		 {"21000", "data"},
		{"P0001", "data"},		{"54000", "data"},		 {"42501", "schema"},
		{"42P01", "schema"},	{"42703", "schema"},	 {"0A000", "schema"},
		{"3F000", "schema"},	{"2F003", "schema"},	 {"55000", "schema"},
		{"57014", "cancelled"}, {"57P01", "terminated"}, {"57P03", "interrupted"},
		{"XX000", "internal"},	{"XX001", "internal"},	 {"", "internal"},
		{"ZZZZZ", "internal"},
	};
	char name[100];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		snprintf(name, sizeof(name), "\"%s\" is %s", cases[i].sqlstate, cases[i].class_name);
		is_str(pgt_failure_class_name(pgt_retry_classify(cases[i].sqlstate, false, false)),
			   cases[i].class_name, name);
	}
	is_str(pgt_failure_class_name(pgt_retry_classify("57014", true, false)), "timeout",
		   "57014 from a limit of our own is a timeout");
	is_str(pgt_failure_class_name(pgt_retry_classify("57P01", false, true)), "interrupted",
		   "57P01 with a shutdown is an interruption");
	is_str(pgt_failure_class_name(pgt_retry_classify("42501", true, true)), "schema",
		   "neither changes another class");
}

static void
test_waits(void)
{
	int64_t limit = 1000;
	bool within = true;

	for (int attempt = 1; attempt < 100; attempt++)
	{
		PgtRetry least = decide("40001", attempt, 0, 0);
		PgtRetry most = decide("40001", attempt, 0, 0.999999);

		within &= least.delay_ms == 50 && most.delay_ms <= limit && most.delay_ms >= limit - 2;
		limit = limit * 2 < 300000 ? limit * 2 : 300000;
	}
	ok(within, "back-off is random up to a limit that doubles from 1 s to 5 min");
	is_int(decide("22012", 9, 0, 0.5).delay_ms, 300000, "data: 5 min");
	is_int(decide("22012", 1, 0, 0.5).event, PGT_RETRY_ON_INPUT, "or new input");
	is_int(decide("42P01", 1, 0, 0.5).delay_ms, 900000, "schema: 15 min");
	is_int(decide("42P01", 1, 0, 0.5).event, PGT_RETRY_ON_DDL, "or DDL");
	is_int(decide("57014", 1, 0, 0.5).delay_ms, 30000, "cancelled: 30 s");
	is_int(decide("57P01", 1, 0, 0.5).delay_ms, 1000, "terminated: 1 s");
	is_int(decide("57P02", 1, 0, 0.5).delay_ms, 0, "interrupted: at once");
	is_int(decide("40001", 1, 0, 0.5).event, PGT_RETRY_ON_TIME, "nothing ends a back-off early");
}

static void
test_suspension(void)
{
	PgtFailure unlimited = {.sqlstate = "22012", .attempt = 99, .counted_before = 98};

	ok(!decide("22012", 4, 3, 0).suspend, "the fourth failure does not suspend");
	ok(decide("22012", 5, 4, 0).suspend, "the fifth does");
	ok(decide("XX000", 7, 6, 0).suspend, "so does every later one");
	ok(!decide("40001", 50, 4, 0).suspend, "one that does not count never does");
	ok(!decide("57014", 50, 4, 0).counted, "a cancel does not count");
	ok(!decide("57P01", 50, 4, 0).counted, "nor does a terminate");
	ok(!pgt_retry_decide(&unlimited).suspend, "0 is no limit");
}

int
main(void)
{
	test_classes();
	test_waits();
	test_suspension();
	return test_done();
}

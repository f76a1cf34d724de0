/*
 * pgt_test.h
 *		The few lines of TAP that the plain C unit tests need.
 *
 * A unit test is one file t/unit/NAME.c with a main(). t/001_unit.pl compiles it together
 * with the files that its line "link: ..." names, for example
 *
 *		link: worker/policy/cron.c worker/policy/schedule.c
 *
 * without a server, and runs it. main() ends with "return test_done();".
 */
#ifndef PGT_TEST_H
#define PGT_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int test_count = 0;
static int test_failures = 0;

static inline bool
test_report(bool passed, const char *name, const char *file, int line)
{
	test_count++;
	printf("%sok %d - %s\n", passed ? "" : "not ", test_count, name);
	if (!passed)
	{
		test_failures++;
		printf("# failed at %s:%d\n", file, line);
	}
	return passed;
}

static inline bool
test_report_int(long long got, long long want, const char *name, const char *file, int line)
{
	if (!test_report(got == want, name, file, line))
	{
		printf("#      got: %lld\n# expected: %lld\n", got, want);
		return false;
	}
	return true;
}

static inline bool
test_report_str(const char *got, const char *want, const char *name, const char *file, int line)
{
	bool same = (got == NULL || want == NULL) ? got == want : strcmp(got, want) == 0;

	if (!test_report(same, name, file, line))
	{
		printf("#      got: %s\n# expected: %s\n", got ? got : "(null)", want ? want : "(null)");
		return false;
	}
	return true;
}

static inline int
test_done(void)
{
	printf("1..%d\n", test_count);
	return test_failures == 0 ? 0 : 1;
}

#define ok(cond, name) test_report((cond), (name), __FILE__, __LINE__)
#define is_int(got, want, name) test_report_int((got), (want), (name), __FILE__, __LINE__)
#define is_str(got, want, name) test_report_str((got), (want), (name), __FILE__, __LINE__)

#endif /* PGT_TEST_H */

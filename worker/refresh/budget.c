/*
 * budget.c: the time that a differential refresh may take.
 *
 * When it is spent, the statement that runs is cancelled the way a user cancels
 * it, and differential.c takes back what was done. A cancellation that was there
 * before is somebody else's, and cancels the refresh. The timeout stays armed for
 * nobody else: begin and end are in the same function. A refresh inside of
 * another one (a function of the query may ask for it) has no budget of its own.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"

#include "refresh_internal.h"

static TimeoutId budget_timeout = MAX_TIMEOUTS;
static bool running = false;
static volatile sig_atomic_t spent = false;

static void
cancel(void)
{
	if (QueryCancelPending || get_timeout_indicator(STATEMENT_TIMEOUT, false))
		return;
	spent = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

bool
pgt_budget_begin(double ms)
{
	if (ms <= 0 || running)
		return false;
	if (budget_timeout == MAX_TIMEOUTS)
		budget_timeout = RegisterTimeout(USER_TIMEOUT, cancel);
	running = true;
	spent = false;
	enable_timeout_after(budget_timeout, (int) Min(ms, INT_MAX));
	return true;
}

bool
pgt_budget_end(bool began)
{
	if (!began)
		return false;
	running = false;
	disable_timeout(budget_timeout, false);
	/* It may have come when there was nothing left to cancel. */
	if (spent)
		QueryCancelPending = false;
	return spent;
}

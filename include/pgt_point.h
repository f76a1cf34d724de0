/*
 * pgt_point.h: named points at which tests stop, break or kill the server.
 *
 * PGT_POINT("refresh-before-commit") does nothing in production builds. In
 * test builds (-DPGT_TEST_POINTS) the setting pg_trickle.test_points, a list
 * "name=action, ...", says what happens: error, kill (SIGKILL of this process)
 * or wait (until the session-level advisory lock (0x706774, hash of the name)
 * is free, so that a test holds the lock to hold the point).
 */
#ifndef PGT_POINT_H
#define PGT_POINT_H

#ifdef PGT_TEST_POINTS
extern void pgt_point_reach(const char *name);
#define PGT_POINT(name) pgt_point_reach(name)
#else
#define PGT_POINT(name) ((void) 0)
#endif

#endif /* PGT_POINT_H */

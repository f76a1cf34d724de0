/*
 * journal.c: which attempts are under way, for whoever comes after a crash.
 *
 * A file with a record per process that refreshes, written before an attempt
 * begins and wiped when it has ended. Writing costs a microsecond and no
 * transaction, and what was written survives the death of the process and of
 * the server. It is forced to disk only where the last attempt failed or there
 * was none yet. The file says who was at work when the server went down:
 * processes that the postmaster ends since another one crashed get SIGQUIT, and
 * leave a mark; the one that crashed leaves none. So the record without mark is
 * the suspect, and the others are known to be innocent.
 *
 * It lies in pg_stat_tmp, which base backups leave out: what ran on the primary
 * is no news for a standby.
 *
 * Shared memory: which records are taken, by whom, under PGT_LOCK_POOL. A record
 * whose process is gone stays taken until the coordinator of its database has
 * seen it. When shared memory is made anew, the postmaster reads the file.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"

#include "pgt_clock.h"
#include "pgt_compat.h"
#include "pgt_shmem.h"
#include "pgt_wake.h"

#include "pool_internal.h"
#include "sched_internal.h"

#define JOURNAL_FILE PG_STAT_TMP_DIR "/pg_trickle.attempts"
#define JOURNAL_MAGIC 0x70677432
#define RECORDS (PGT_POOL_WORKERS + PGT_MAX_DATABASES + 32)

#define IS_RUNNING 1
#define IS_SUSPECT 2
#define WAS_BYSTANDER 4
#define WAS_TERMINATED 8

typedef struct Record
{
	uint32 magic;
	uint32 flags; /* 0: nothing runs */
	uint64 boot;
	int64 pgt_id;
	TimestampTz started;
	Oid database;
	Oid extension;
	int32 attempt;
	int32 pid;
} Record;

typedef struct Place
{
	bool taken;
	pid_t pid; /* 0: its process is gone */
} Place;

typedef struct Journal
{
	uint64 boot;
	Place places[RECORDS];
} Journal;

static Journal *journal = NULL;
static int file = -1;
static int my_place = -1;
static Record record; /* mine, as it is in the file */

/* ---- The file ---- */

static bool
write_at(int place, size_t offset, const void *bytes, size_t size)
{
	return pwrite(file, bytes, size, (off_t) place * sizeof(Record) + offset) == (ssize_t) size;
}

static void
write_record(void)
{
	if (!write_at(my_place, 0, &record, sizeof(record)))
		ereport(DEBUG1, (errcode_for_file_access(),
						 errmsg("could not write file \"%s\": %m", JOURNAL_FILE)));
}

static bool
read_record(int fd, int place, Record *into)
{
	return pread(fd, into, sizeof(Record), (off_t) place * sizeof(Record)) == sizeof(Record) &&
		   into->magic == JOURNAL_MAGIC && into->flags != 0;
}

static int
open_file(void)
{
	return BasicOpenFile(JOURNAL_FILE, O_RDWR | O_CREAT | PG_BINARY);
}

/* ---- Shared memory ---- */

static Size
get_size(void)
{
	return sizeof(Journal);
}

/* In the postmaster, at every start and after every crash. */
static void
read_file(void)
{
	int fd = open_file();

	for (int i = 0; fd >= 0 && i < RECORDS; i++)
	{
		Record found;

		journal->places[i].taken = read_record(fd, i, &found);
	}
	if (fd >= 0)
		close(fd);
}

static void
attach(void *memory, bool found)
{
	journal = memory;
	if (found)
		return;
	memset(journal, 0, sizeof(Journal));
	journal->boot = (uint64) pgt_clock_now();
	read_file();
}

static const PgtShmemArea area = {"pg_trickle attempts", get_size, attach};

void
pgt_journal_init(void)
{
	pgt_shmem_register(&area);
}

/* ---- A process that refreshes ---- */

/* The server goes down because of another process, or at once: the record shall say so. */
static void
leave_mark(SIGNAL_ARGS)
{
	if (my_place >= 0 && record.flags != 0)
	{
		uint32 flags = record.flags | WAS_BYSTANDER;

		(void) write_at(my_place, offsetof(Record, flags), &flags, sizeof(flags));
	}
	SignalHandlerForCrashExit(postgres_signal_arg);
}

/* In the middle of an attempt: whoever coordinates next finds the record. */
static void
leave_journal(int code, Datum arg)
{
	bool in_attempt = record.flags != 0;

	if (my_place < 0)
		return;
	if (in_attempt)
	{
		record.flags |= WAS_TERMINATED;
		write_record();
	}
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), LW_EXCLUSIVE);
	journal->places[my_place].pid = 0;
	journal->places[my_place].taken = in_attempt;
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
	my_place = -1;
}

void
pgt_journal_enter(void)
{
	int place = -1;

	file = open_file();
	if (file < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(), errmsg("could not open file \"%s\": %m", JOURNAL_FILE),
				 errdetail("After a crash nobody will know what was being refreshed.")));
		return;
	}
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), LW_EXCLUSIVE);
	for (int i = 0; i < RECORDS && place < 0; i++)
		if (!journal->places[i].taken)
			place = i;
	if (place >= 0)
	{
		journal->places[place].taken = true;
		journal->places[place].pid = MyProcPid;
	}
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
	my_place = place;
	before_shmem_exit(leave_journal, (Datum) 0);
	pqsignal(SIGQUIT, leave_mark);
}

void
pgt_journal_begin(const PgtJobItem *item, TimestampTz started)
{
	if (my_place < 0)
		return;
	memset(&record, 0, sizeof(record));
	record.magic = JOURNAL_MAGIC;
	record.boot = journal->boot;
	record.database = MyDatabaseId;
	record.extension = pgt_session_extension();
	record.pgt_id = item->pgt_id;
	record.attempt = item->attempt;
	record.started = started;
	record.pid = MyProcPid;
	record.flags = IS_RUNNING | (item->suspect ? IS_SUSPECT : 0);
	write_record();
	if (item->forced && enableFsync)
		(void) pg_fdatasync(file);
}

void
pgt_journal_end(void)
{
	if (my_place < 0 || record.flags == 0)
		return;
	record.flags = 0;
	write_record();
}

/* ---- Whoever comes afterwards ---- */

static PgtAttemptEnd
end_of(const Record *found)
{
	if (found->boot == journal->boot)
		return PGT_ATTEMPT_TERMINATED;
	if (found->flags & WAS_TERMINATED)
		return PGT_ATTEMPT_INTERRUPTED;
	return found->flags & WAS_BYSTANDER ? PGT_ATTEMPT_BYSTANDER : PGT_ATTEMPT_CRASHED;
}

static bool
is_lost(int place)
{
	return journal->places[place].taken && journal->places[place].pid == 0;
}

List *
pgt_journal_list_lost(void)
{
	List *lost = NIL;

	for (int i = 0; file >= 0 && i < RECORDS; i++)
	{
		PgtLostAttempt *attempt;
		Record found;
		bool wanted;

		LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), LW_SHARED);
		wanted = is_lost(i);
		LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
		if (!wanted || !read_record(file, i, &found) || found.database != MyDatabaseId)
			continue;
		attempt = palloc0(sizeof(PgtLostAttempt));
		attempt->place = i;
		attempt->extension = found.extension;
		attempt->pgt_id = found.pgt_id;
		attempt->attempt = found.attempt;
		attempt->suspect = (found.flags & IS_SUSPECT) != 0;
		attempt->pid = found.pid;
		attempt->started = found.started;
		attempt->end = end_of(&found);
		lost = lappend(lost, attempt);
	}
	return lost;
}

/* The place is free for others, unless the record would come back after a crash. */
static void
wipe(int fd, int place)
{
	static const Record nothing = {0};

	if (pwrite(fd, &nothing, sizeof(nothing), (off_t) place * sizeof(Record)) == sizeof(nothing))
		journal->places[place].taken = false;
}

void
pgt_journal_forget(const PgtLostAttempt *lost)
{
	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), LW_EXCLUSIVE);
	if (is_lost(lost->place))
		wipe(file, lost->place);
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
}

static void
forget_all_but(List *databases)
{
	int fd = open_file();
	Record found;

	for (int i = 0; fd >= 0 && i < RECORDS; i++)
	{
		LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), LW_EXCLUSIVE);
		if (is_lost(i) &&
			(!read_record(fd, i, &found) || !list_member_oid(databases, found.database)))
			wipe(fd, i);
		LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
	}
	if (fd >= 0)
		close(fd);
}

void
pgt_journal_keep_only(List *databases)
{
	bool any = false;

	LWLockAcquire(pgt_shmem_lock(PGT_LOCK_POOL), LW_SHARED);
	for (int i = 0; i < RECORDS; i++)
		any = any || is_lost(i);
	LWLockRelease(pgt_shmem_lock(PGT_LOCK_POOL));
	if (any && databases != NIL)
		forget_all_but(databases);
}

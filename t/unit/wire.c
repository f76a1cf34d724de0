/*
 * wire.c: pgt_wire.h reads what it wrote, and survives what it did not write.
 */
#include <stdint.h>
#include <stdlib.h>

#include "pgt_test.h"
#include "pgt_wire.h"

static bool
text_is(PgtWireText text, const char *expected)
{
	return text.len == strlen(expected) && memcmp(text.data, expected, text.len) == 0;
}

/* Copies into memory of exactly that size, where a sanitizer sees one byte too many. */
static char *
copy_exactly(const char *from, size_t len)
{
	char *copy = malloc(len > 0 ? len : 1);

	memcpy(copy, from, len);
	return copy;
}

static void
test_open(void)
{
	PgtWireRefreshOpen open = {4711, INT64_MAX, INT64_MIN, {"", 0}, {"", 0}, {"", 0}, {"", 0}};
	PgtWireRefreshOpen back;
	char buf[200];
	size_t size;
	bool short_ok = false;

	open.schema = pgt_wire_text("My Schema");
	open.name = pgt_wire_text("\xc3\xa4");
	open.mode = pgt_wire_text("DIFFERENTIAL");
	open.frontier = pgt_wire_text(NULL);

	size = pgt_wire_encode_open(&open, NULL, 0);
	ok(size == 2 + 4 + 8 + 8 + 4 * 4 + 9 + 2 + 12, "an opening message tells its size");
	ok(pgt_wire_encode_open(&open, buf, sizeof(buf)) == size, "and takes it");
	ok(pgt_wire_get_kind(buf, size) == PGT_WIRE_KIND_OPEN, "its kind can be told");
	ok(pgt_wire_decode_open(buf, size, &back), "it can be read");
	ok(back.relid == 4711 && back.refresh_id == INT64_MAX && back.data_timestamp == INT64_MIN,
	   "numbers come back");
	ok(text_is(back.schema, "My Schema") && text_is(back.name, "\xc3\xa4") &&
		   text_is(back.mode, "DIFFERENTIAL") && text_is(back.frontier, ""),
	   "strings come back");

	for (size_t i = 0; i < size; i++)
	{
		char *cut = copy_exactly(buf, i);

		short_ok = short_ok || pgt_wire_decode_open(cut, i, &back);
		free(cut);
	}
	ok(!short_ok, "no shorter message is accepted");
	ok(pgt_wire_decode_open(buf, size + 5, &back), "fields of a later release are ignored");

	buf[0] = PGT_WIRE_VERSION + 1;
	ok(!pgt_wire_decode_open(buf, size, &back), "another version is not accepted");
	buf[0] = PGT_WIRE_VERSION;
	buf[30] = '\0';
	ok(!pgt_wire_decode_open(buf, size, &back), "a NUL in a name is not accepted");
}

/* Anybody may write a message: none may grow beyond what a consumer takes. */
static void
test_long_open(void)
{
	static char name[4096];
	static char buf[8192];
	PgtWireRefreshOpen open = {0};
	PgtWireRefreshOpen back;

	memset(name, 'n', sizeof(name) - 1);
	open.relid = 1;
	open.schema = pgt_wire_text("s");
	open.name = pgt_wire_text(name);
	ok(!pgt_wire_decode_open(buf, pgt_wire_encode_open(&open, buf, sizeof(buf)), &back),
	   "a name longer than any name is not accepted");
	open.name = pgt_wire_text("n");
	open.frontier = pgt_wire_text(name);
	ok(pgt_wire_decode_open(buf, pgt_wire_encode_open(&open, buf, sizeof(buf)), &back),
	   "a long snapshot is");
}

static void
test_close(void)
{
	PgtWireRefreshClose close = {1, -1, 0, 2, INT64_C(1) << 40};
	PgtWireRefreshClose back;
	PgtWireRefreshOpen open;
	char buf[PGT_WIRE_CLOSE_SIZE];

	ok(pgt_wire_encode_close(&close, buf, sizeof(buf)) == sizeof(buf),
	   "a closing message has a fixed size");
	ok(pgt_wire_decode_close(buf, sizeof(buf), &back) && back.relid == 1 && back.refresh_id == -1 &&
		   back.inserted == 0 && back.updated == 2 && back.deleted == INT64_C(1) << 40,
	   "it can be read");
	ok(!pgt_wire_decode_close(buf, sizeof(buf) - 1, &back), "no shorter message is accepted");
	ok(!pgt_wire_decode_open(buf, sizeof(buf), &open), "nor taken for an opening one");

	close.updated = -1;
	pgt_wire_encode_close(&close, buf, sizeof(buf));
	ok(!pgt_wire_decode_close(buf, sizeof(buf), &back), "a negative count is not accepted");
	close.updated = 0;
	close.relid = 0;
	pgt_wire_encode_close(&close, buf, sizeof(buf));
	ok(!pgt_wire_decode_close(buf, sizeof(buf), &back), "oid 0 is not accepted");
}

static void
test_heartbeat(void)
{
	int64_t time = 0;

	ok(pgt_wire_decode_heartbeat("1795389790011234", 16, &time) &&
		   time == INT64_C(1795389790011234),
	   "the time of a heartbeat");
	ok(!pgt_wire_decode_heartbeat("", 0, &time), "none is none");
	ok(!pgt_wire_decode_heartbeat("-1", 2, &time) && !pgt_wire_decode_heartbeat("1 ", 2, &time),
	   "nothing but digits is accepted");
	ok(!pgt_wire_decode_heartbeat("1234567890123456789", 19, &time), "nor too many of them");
}

/* Nothing to compare: the sanitizers are the test. */
static void
test_garbage(void)
{
	PgtWireRefreshOpen open;
	PgtWireRefreshClose close;
	int accepted = 0;

	srand(1);
	for (int round = 0; round < 200000; round++)
	{
		char bytes[80];
		size_t len = (size_t) (rand() % (int) sizeof(bytes));
		char *copy;

		for (size_t i = 0; i < len; i++)
			bytes[i] = (char) (rand() % 4 != 0 ? 0 : rand());
		if (len >= 2)
		{
			bytes[0] = PGT_WIRE_VERSION;
			bytes[1] = round % 2 != 0 ? PGT_WIRE_KIND_OPEN : PGT_WIRE_KIND_CLOSE;
		}
		copy = copy_exactly(bytes, len);
		accepted += pgt_wire_decode_open(copy, len, &open);
		accepted += pgt_wire_decode_close(copy, len, &close);
		free(copy);
	}
	ok(accepted < 200000, "garbage is read within bounds");
	ok(pgt_wire_get_kind(NULL, 0) == 0, "nothing is nothing");
}

int
main(void)
{
	test_open();
	test_long_open();
	test_close();
	test_heartbeat();
	test_garbage();
	return test_done();
}

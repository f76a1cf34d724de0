/*
 * binary_value.c: values as their types' send functions write them, in UTF-8.
 *
 * Frequent types are written here, byte for byte like their send functions but without an
 * allocation each. Arrays and composite types are, too, since their send functions name
 * types of users by oids, which differ between servers: ours write 0 for these.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/arrayaccess.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "pgtd_binary.h"
#include "pgtd_out.h"
#include "pgtd_value.h"

static void
put_float8(PgtdOut *out, float8 value)
{
	uint64 bits;

	memcpy(&bits, &value, sizeof(bits));
	pgtd_put_uint64_be(out, bits);
}

static void
put_float4(PgtdOut *out, float4 value)
{
	uint32 bits;

	memcpy(&bits, &value, sizeof(bits));
	pgtd_put_uint32_be(out, bits);
}

static void
put_text(PgtdOut *out, const char *text, Size len)
{
	const char *utf8 = pgtd_to_utf8(out->encoding, text, len, &len, false);

	pgtd_put_bytes(out, utf8, len);
}

static void
put_jsonb(PgtdOut *out, Datum value)
{
	struct varlena *bytes = pgtd_detoast_bounded(out, value);
	char *text = bytes != NULL ? pgtd_make_jsonb_text(out, bytes) : NULL;

	if (text == NULL)
		return;
	pgtd_put_char(out, 1); /* version */
	put_text(out, text, strlen(text));
}

/* Of the base type of a domain; only oids that are the same on every server. */
static void
put_type_id(PgtdOut *out, const PgtdType *type)
{
	pgtd_put_uint32_be(out, type->type_id < FirstGenbkiObjectId ? type->type_id : InvalidOid);
}

/* Its length first. */
static void
put_part(PgtdOut *out, const PgtdType *type, Datum value, bool is_null)
{
	if (is_null)
		pgtd_put_uint32_be(out, (uint32) PGTD_BINARY_NULL);
	else
		pgtd_put_sized_binary_value(out, type, value);
}

/* As array_send. */
static void
put_array(PgtdOut *out, const PgtdType *type, Datum value)
{
	struct varlena *bytes = pgtd_detoast_bounded(out, value);
	const PgtdType *element = type->element;
	ArrayType *array;
	array_iter iter;
	int count;

	if (bytes == NULL)
		return;
	array = DatumGetArrayTypeP(PointerGetDatum(bytes));
	count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	pgtd_put_uint32_be(out, ARR_NDIM(array));
	pgtd_put_uint32_be(out, ARR_HASNULL(array) ? 1 : 0);
	put_type_id(out, element);
	for (int i = 0; i < ARR_NDIM(array); i++)
	{
		pgtd_put_uint32_be(out, ARR_DIMS(array)[i]);
		pgtd_put_uint32_be(out, ARR_LBOUND(array)[i]);
	}
	array_iter_setup(&iter, (AnyArrayType *) array);
	for (int i = 0; i < count && !out->full; i++)
	{
		bool is_null;
		Datum item = array_iter_next(&iter, &is_null, i, element->len, element->by_value,
									 element->align);

		put_part(out, element, item, is_null);
	}
}

/* As record_send. */
static void
put_composite(PgtdOut *out, const PgtdType *type, Datum value)
{
	struct varlena *bytes = pgtd_detoast_bounded(out, value);
	Datum *values;
	bool *nulls;

	if (bytes == NULL)
		return;
	pgtd_deform_composite(type, PointerGetDatum(bytes), &values, &nulls);
	pgtd_put_uint32_be(out, type->field_count);
	for (int i = 0; i < type->field_count && !out->full; i++)
	{
		const PgtdField *field = &type->fields[i];

		put_type_id(out, field->type);
		put_part(out, field->type, values[field->index], nulls[field->index]);
	}
}

static void
put_sent(PgtdOut *out, const PgtdType *type, Datum value)
{
	bytea *bytes;
	char *text;

	if (pgtd_is_too_large(out, type, value))
		return;
	if (OidIsValid(type->send.fn_oid))
	{
		bytes = SendFunctionCall(unconstify(FmgrInfo *, &type->send), value);
		pgtd_put_bytes(out, VARDATA(bytes), VARSIZE(bytes) - VARHDRSZ);
		return;
	}
	text = OutputFunctionCall(unconstify(FmgrInfo *, &type->output), value);
	put_text(out, text, strlen(text));
}

void
pgtd_put_binary_value(PgtdOut *out, const PgtdType *type, Datum value)
{
	struct varlena *bytes;

	if (out->full)
		return;

	switch (type->kind)
	{
		case PGTD_BOOL:
			pgtd_put_char(out, DatumGetBool(value) ? 1 : 0);
			return;
		case PGTD_INT2:
			pgtd_put_uint16_be(out, DatumGetInt16(value));
			return;
		case PGTD_INT4:
			pgtd_put_uint32_be(out, DatumGetInt32(value));
			return;
		case PGTD_INT8:
			pgtd_put_uint64_be(out, DatumGetInt64(value));
			return;
		case PGTD_OID:
			pgtd_put_uint32_be(out, DatumGetObjectId(value));
			return;
		case PGTD_FLOAT4:
			put_float4(out, DatumGetFloat4(value));
			return;
		case PGTD_FLOAT8:
			put_float8(out, DatumGetFloat8(value));
			return;
		case PGTD_NUMERIC:
			bytes = pgtd_detoast_bounded(out, value);
			if (bytes != NULL)
				pgtd_put_binary_numeric(out, bytes);
			return;
		case PGTD_TEXT:
		case PGTD_JSON:
			bytes = pgtd_detoast_bounded(out, value);
			if (bytes != NULL)
				put_text(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			return;
		case PGTD_BYTEA:
			bytes = pgtd_detoast_bounded(out, value);
			if (bytes != NULL)
				pgtd_put_bytes(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			return;
		case PGTD_DATE:
			pgtd_put_uint32_be(out, DatumGetDateADT(value));
			return;
		case PGTD_TIME:
			pgtd_put_uint64_be(out, DatumGetTimeADT(value));
			return;
		case PGTD_TIMETZ:
			pgtd_put_uint64_be(out, DatumGetTimeTzADTP(value)->time);
			pgtd_put_uint32_be(out, DatumGetTimeTzADTP(value)->zone);
			return;
		case PGTD_TIMESTAMP:
			pgtd_put_uint64_be(out, DatumGetTimestamp(value));
			return;
		case PGTD_TIMESTAMPTZ:
			pgtd_put_uint64_be(out, DatumGetTimestampTz(value));
			return;
		case PGTD_INTERVAL:
			pgtd_put_uint64_be(out, DatumGetIntervalP(value)->time);
			pgtd_put_uint32_be(out, DatumGetIntervalP(value)->day);
			pgtd_put_uint32_be(out, DatumGetIntervalP(value)->month);
			return;
		case PGTD_JSONB:
			put_jsonb(out, value);
			return;
		case PGTD_ARRAY:
			put_array(out, type, value);
			return;
		case PGTD_COMPOSITE:
			put_composite(out, type, value);
			return;
		case PGTD_OUTPUT:
			put_sent(out, type, value);
			return;
	}
}

/* A number of so many bytes with its length before it, in one step. */
static inline void
put_sized_number(PgtdOut *out, uint64 number, int len)
{
	uint32 sized = pg_hton32(len);
	uint64 bytes = pg_hton64(number << (8 * (sizeof(number) - len)));
	char *to = pgtd_reserve(out, sizeof(sized) + sizeof(bytes));

	if (to == NULL)
		return;
	memcpy(to, &sized, sizeof(sized));
	memcpy(to + sizeof(sized), &bytes, sizeof(bytes));
	pgtd_advance(out, sizeof(sized) + len);
}

void
pgtd_put_sized_binary_value(PgtdOut *out, const PgtdType *type, Datum value)
{
	int start;

	switch (type->kind)
	{
		case PGTD_BOOL:
			put_sized_number(out, DatumGetBool(value) ? 1 : 0, 1);
			return;
		case PGTD_INT4:
		case PGTD_DATE:
			put_sized_number(out, DatumGetUInt32(value), sizeof(int32));
			return;
		case PGTD_INT8:
		case PGTD_FLOAT8:
		case PGTD_TIMESTAMP:
		case PGTD_TIMESTAMPTZ:
			put_sized_number(out, (uint64) DatumGetInt64(value), sizeof(int64));
			return;
		default:
			start = pgtd_start_length(out);
			pgtd_put_binary_value(out, type, value);
			pgtd_end_length(out, start);
			return;
	}
}

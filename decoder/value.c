/*
 * value.c: types, and what each looks like in JSON.
 *
 * Building a PgtdType reads catalogs and runs under the historic snapshot of a change;
 * writing a value reads none (output functions of types of users may, that is theirs).
 *
 * Owns nothing. Types live with their relation's cache entry; what a value allocates while
 * it is written goes away when the caller resets its context.
 */
#include "postgres.h"

#include <math.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/arrayaccess.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "pgtd_out.h"
#include "pgtd_value.h"

/* Output functions fail on their own beyond 1 GB; text rarely grows more than this. */
#define OUTPUT_MAX_GROWTH 4

/* A jsonb this small cannot need 1 GB, see put_jsonb. */
#define JSONB_SMALL 4096

/* ---- types ------------------------------------------------------------------------- */

typedef struct KindRow
{
	Oid type_id;
	PgtdKind kind;
} KindRow;

static const KindRow kind_table[] = {
	{BOOLOID, PGTD_BOOL},
	{INT2OID, PGTD_INT2},
	{INT4OID, PGTD_INT4},
	{INT8OID, PGTD_INT8},
	{OIDOID, PGTD_OID},
	{FLOAT4OID, PGTD_FLOAT4},
	{FLOAT8OID, PGTD_FLOAT8},
	{NUMERICOID, PGTD_NUMERIC},
	{BYTEAOID, PGTD_BYTEA},
	{DATEOID, PGTD_DATE},
	{TIMEOID, PGTD_TIME},
	{TIMETZOID, PGTD_TIMETZ},
	{TIMESTAMPOID, PGTD_TIMESTAMP},
	{TIMESTAMPTZOID, PGTD_TIMESTAMPTZ},
	{INTERVALOID, PGTD_INTERVAL},
	{JSONOID, PGTD_JSON},
	{JSONBOID, PGTD_JSONB},
};

/* Types written by their output function that is known to read no setting. */
static const Oid plain_output_types[] = {
	UUIDOID,		   NAMEOID,			 CHAROID,		 INETOID,
	CIDROID,		   MACADDROID,		 MACADDR8OID,	 BITOID,
	VARBITOID,		   TIDOID,			 XIDOID,		 CIDOID,
	XID8OID,		   PG_LSNOID,		 TSVECTOROID,	 TSQUERYOID,
	INT4RANGEOID,	   INT8RANGEOID,	 NUMRANGEOID,	 INT4MULTIRANGEOID,
	INT8MULTIRANGEOID, NUMMULTIRANGEOID, PG_SNAPSHOTOID,
};

static bool
reads_no_setting(Oid type_id)
{
	for (int i = 0; i < lengthof(plain_output_types); i++)
	{
		if (plain_output_types[i] == type_id)
			return true;
	}
	return type_is_enum(type_id);
}

const char *
pgtd_make_member(const PgtdEncoding *encoding, const char *name, Size *len)
{
	StringInfoData buf;
	PgtdOut out = {.buf = &buf, .limit = MaxAllocSize - 1, .encoding = encoding};

	initStringInfo(&buf);
	pgtd_put_string(&out, name, strlen(name));
	pgtd_put_literal(&out, ":");
	buf.data[buf.len] = '\0';
	*len = buf.len;
	return buf.data;
}

static void
set_composite(const PgtdEncoding *encoding, PgtdType *type, PgtdTypeNeeds *needs)
{
	TupleDesc desc = lookup_rowtype_tupdesc_copy(type->type_id, -1);

	type->kind = PGTD_COMPOSITE;
	type->desc = desc;
	type->fields = palloc(sizeof(PgtdField) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		PgtdField *field = &type->fields[type->field_count];

		if (attribute->attisdropped)
			continue;
		field->index = i;
		field->member = pgtd_make_member(encoding, NameStr(attribute->attname), &field->member_len);
		field->type = pgtd_make_type(encoding, attribute->atttypid, needs);
		type->field_count++;
	}
	needs->relation_ids = list_append_unique_oid(needs->relation_ids,
												 get_typ_typrelid(type->type_id));
}

/* Send functions whose bytes are text, which they convert to client_encoding. */
static bool
sends_no_text(Oid type_id)
{
	return reads_no_setting(type_id) && type_id != NAMEOID && type_id != TSVECTOROID &&
		   type_id != TSQUERYOID && !type_is_enum(type_id);
}

static void
set_send(PgtdType *type, PgtdTypeNeeds *needs)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type->type_id));
	Oid function;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("could not find the type with OID %u", type->type_id)));
	function = ((Form_pg_type) GETSTRUCT(tuple))->typsend;
	ReleaseSysCache(tuple);
	if (OidIsValid(function))
		fmgr_info(function, &type->send);
	else
		needs->no_send = true;
	if (!sends_no_text(type->type_id))
		needs->client_encoding = true;
}

static void
set_output(PgtdType *type, PgtdTypeNeeds *needs)
{
	Oid function;
	bool is_varlena;

	getTypeOutputInfo(type->type_id, &function, &is_varlena);
	fmgr_info(function, &type->output);

	/* text, and all that borrow its output function: varchar, char(n), citext. */
	if (is_varlena && (type->output.fn_addr == textout || type->output.fn_addr == varcharout ||
					   type->output.fn_addr == bpcharout))
	{
		type->kind = PGTD_TEXT;
		return;
	}
	type->kind = PGTD_OUTPUT;
	set_send(type, needs);
	if (!reads_no_setting(type->type_id))
		needs->settings = true;
}

PgtdType *
pgtd_make_type(const PgtdEncoding *encoding, Oid type_id, PgtdTypeNeeds *needs)
{
	PgtdType *type = palloc0(sizeof(PgtdType));
	Oid element_id;

	check_stack_depth();
	if (type_id >= FirstNormalObjectId)
		needs->type_ids = list_append_unique_oid(needs->type_ids, type_id);
	type->type_id = getBaseType(type_id);
	if (type->type_id != type_id && type->type_id >= FirstNormalObjectId)
		needs->type_ids = list_append_unique_oid(needs->type_ids, type->type_id);
	get_typlenbyvalalign(type->type_id, &type->len, &type->by_value, &type->align);

	for (int i = 0; i < lengthof(kind_table); i++)
	{
		if (kind_table[i].type_id == type->type_id)
		{
			type->kind = kind_table[i].kind;
			return type;
		}
	}

	element_id = get_element_type(type->type_id);
	if (OidIsValid(element_id))
	{
		type->kind = PGTD_ARRAY;
		type->element = pgtd_make_type(encoding, element_id, needs);
	}
	else if (get_typtype(type->type_id) == TYPTYPE_COMPOSITE)
		set_composite(encoding, type, needs);
	else
		set_output(type, needs);
	return type;
}

/* ---- what schema messages say of a type ---------------------------------------------- */

/* Modifiers as the type itself writes them, for example "(Point,4326)". */
static void
append_typmod(StringInfo buf, Form_pg_type form, int32 typmod)
{
	if (typmod < 0)
		return;
	if (OidIsValid(form->typmodout))
		appendStringInfoString(
			buf, DatumGetCString(OidFunctionCall1(form->typmodout, Int32GetDatum(typmod))));
	else
		appendStringInfo(buf, "(%d)", typmod);
}

/*
 * The canonical name: types of pg_catalog bare and as SQL spells them, all others with their
 * schema, whatever search_path says and whichever words the release has for keywords.
 */
static void
append_type_name(StringInfo buf, Oid type_id, int32 typmod)
{
	Oid element_id = get_element_type(type_id);
	const char *prefix = "pg_catalog.";
	HeapTuple tuple;
	Form_pg_type form;

	if (OidIsValid(element_id) && type_id != INT2VECTOROID && type_id != OIDVECTOROID)
	{
		append_type_name(buf, element_id, typmod);
		appendStringInfoString(buf, "[]");
		return;
	}
	if (type_id < FirstNormalObjectId)
	{
		const char *name = format_type_extended(
			type_id, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);

		if (strncmp(name, prefix, strlen(prefix)) == 0)
			name += strlen(prefix);
		appendStringInfoString(buf, name);
		return;
	}

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type_id));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("could not find the type with OID %u", type_id)));
	form = (Form_pg_type) GETSTRUCT(tuple);
	pgtd_append_name(buf, get_namespace_name(form->typnamespace), NameStr(form->typname));
	append_typmod(buf, form, typmod);
	ReleaseSysCache(tuple);
}

static void
put_type_name(PgtdOut *out, Oid type_id, int32 typmod)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_type_name(&buf, type_id, typmod);
	pgtd_put_string(out, buf.data, buf.len);
	pfree(buf.data);
}

static void
put_composite_fields(PgtdOut *out, Oid type_id)
{
	TupleDesc desc = lookup_rowtype_tupdesc_copy(type_id, -1);
	bool is_first = true;

	pgtd_put_literal(out, ",\"fields\":[");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		const char *name = NameStr(attribute->attname);

		if (attribute->attisdropped)
			continue;
		if (!is_first)
			pgtd_put_char(out, ',');
		is_first = false;
		pgtd_put_literal(out, "{\"name\":");
		pgtd_put_string(out, name, strlen(name));
		pgtd_put_char(out, ',');
		pgtd_put_type_members(out, attribute->atttypid, attribute->atttypmod);
		pgtd_put_char(out, '}');
	}
	pgtd_put_char(out, ']');
	FreeTupleDesc(desc);
}

void
pgtd_put_type_members(PgtdOut *out, Oid type_id, int32 typmod)
{
	int32 base_typmod = typmod;
	Oid base_id = getBaseTypeAndTypmod(type_id, &base_typmod);
	Oid inner_id = base_id;

	check_stack_depth();
	pgtd_put_literal(out, "\"type\":");
	put_type_name(out, type_id, typmod);
	pgtd_put_literal(out, ",\"typmod\":");
	pgtd_put_int64(out, typmod);
	if (base_id != type_id)
	{
		pgtd_put_literal(out, ",\"base\":");
		put_type_name(out, base_id, base_typmod);
	}

	while (OidIsValid(get_element_type(inner_id)))
		inner_id = getBaseType(get_element_type(inner_id));
	if (get_typtype(inner_id) == TYPTYPE_COMPOSITE)
		put_composite_fields(out, inner_id);
}

/* ---- values ------------------------------------------------------------------------ */

struct varlena *
pgtd_detoast_bounded(PgtdOut *out, Datum value)
{
	if (VARATT_IS_EXTENDED(DatumGetPointer(value)) && toast_raw_datum_size(value) > out->limit)
	{
		out->full = true;
		return NULL;
	}
	return PG_DETOAST_DATUM_PACKED(value);
}

static void
put_float(PgtdOut *out, double value, bool is_float4)
{
	char text[DOUBLE_SHORTEST_DECIMAL_LEN];
	int len;

	if (isnan(value))
		pgtd_put_literal(out, "\"NaN\"");
	else if (isinf(value))
	{
		if (value < 0)
			pgtd_put_literal(out, "\"-Infinity\"");
		else
			pgtd_put_literal(out, "\"Infinity\"");
	}
	else
	{
		len = is_float4 ? float_to_shortest_decimal_bufn((float) value, text)
						: double_to_shortest_decimal_bufn(value, text);
		pgtd_put_bytes(out, text, len);
	}
}

/*
 * JSON without the white space between its tokens: a value of type json may hold newlines,
 * which would end the line.
 */
static void
put_json_tokens(PgtdOut *out, const char *json, Size len)
{
	const char *end = json + len;
	char *start = pgtd_reserve(out, len);
	char *to = start;
	bool in_string = false;

	if (to == NULL)
		return;
	for (; json < end; json++)
	{
		if (in_string && *json == '\\' && json + 1 < end)
			*to++ = *json++;
		else if (*json == '"')
			in_string = !in_string;
		else if (!in_string && (*json == ' ' || *json == '\n' || *json == '\r' || *json == '\t'))
			continue;
		*to++ = *json;
	}
	pgtd_advance(out, to - start);
}

static void
put_json(PgtdOut *out, const PgtdValueStyle *style, const char *json, Size len)
{
	const char *utf8;

	if (style->json_as_text)
	{
		pgtd_put_string(out, json, len);
		return;
	}
	utf8 = pgtd_to_utf8(out->encoding, json, len, &len, false);
	put_json_tokens(out, utf8, len);
}

/*
 * The text of a small jsonb can be huge (a number of 131,072 digits takes ten bytes), and
 * beyond 1 GB it cannot be made at all. Making text takes nothing but memory, so that error
 * can be caught without a subtransaction, and a row like that need not stop a slot for ever.
 */
char *
pgtd_make_jsonb_text(PgtdOut *out, struct varlena *bytes)
{
	Jsonb *jsonb = DatumGetJsonbP(PointerGetDatum(bytes));
	MemoryContext context = CurrentMemoryContext;
	char *volatile text = NULL;

	if (VARSIZE(jsonb) <= JSONB_SMALL)
		return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

	PG_TRY();
	{
		text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		out->full = true;
	}
	PG_END_TRY();
	return text;
}

static void
put_jsonb(PgtdOut *out, const PgtdValueStyle *style, Datum value)
{
	struct varlena *bytes = pgtd_detoast_bounded(out, value);
	char *text;

	if (bytes == NULL)
		return;
	text = pgtd_make_jsonb_text(out, bytes);
	if (text != NULL)
		put_json(out, style, text, strlen(text));
}

bool
pgtd_is_too_large(PgtdOut *out, const PgtdType *type, Datum value)
{
	if (type->len == -1 && VARATT_IS_EXTENDED(DatumGetPointer(value)) &&
		toast_raw_datum_size(value) > Min(out->limit, MaxAllocSize / OUTPUT_MAX_GROWTH))
		out->full = true;
	return out->full;
}

static void
put_output(PgtdOut *out, const PgtdType *type, Datum value)
{
	char *text;

	if (pgtd_is_too_large(out, type, value))
		return;
	text = OutputFunctionCall(unconstify(FmgrInfo *, &type->output), value);
	pgtd_put_string(out, text, strlen(text));
}

static void
put_array_dimension(PgtdOut *out, const PgtdValueStyle *style, const PgtdType *element,
					const ArrayType *array, array_iter *iter, int dimension, int *index)
{
	int count = ARR_DIMS(array)[dimension];

	pgtd_put_char(out, '[');
	for (int i = 0; i < count && !out->full; i++)
	{
		Datum value;
		bool is_null;

		if (i > 0)
			pgtd_put_char(out, ',');
		if (dimension + 1 < ARR_NDIM(array))
		{
			put_array_dimension(out, style, element, array, iter, dimension + 1, index);
			continue;
		}
		value = array_iter_next(iter, &is_null, (*index)++, element->len, element->by_value,
								element->align);
		if (is_null)
			pgtd_put_literal(out, "null");
		else
			pgtd_put_value(out, style, element, value);
	}
	pgtd_put_char(out, ']');
}

static void
put_array(PgtdOut *out, const PgtdValueStyle *style, const PgtdType *type, Datum value)
{
	struct varlena *bytes = pgtd_detoast_bounded(out, value);
	ArrayType *array;
	array_iter iter;
	int index = 0;

	if (bytes == NULL)
		return;
	array = DatumGetArrayTypeP(PointerGetDatum(bytes));
	if (ARR_NDIM(array) == 0)
	{
		pgtd_put_literal(out, "[]");
		return;
	}
	array_iter_setup(&iter, (AnyArrayType *) array);
	put_array_dimension(out, style, type->element, array, &iter, 0, &index);
}

void
pgtd_deform_composite(const PgtdType *type, Datum value, Datum **values, bool **nulls)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	HeapTupleData tuple;

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	*values = palloc(sizeof(Datum) * Max(type->desc->natts, 1));
	*nulls = palloc(sizeof(bool) * Max(type->desc->natts, 1));
	heap_deform_tuple(&tuple, type->desc, *values, *nulls);
}

static void
put_composite(PgtdOut *out, const PgtdValueStyle *style, const PgtdType *type, Datum value)
{
	struct varlena *bytes = pgtd_detoast_bounded(out, value);
	Datum *values;
	bool *nulls;

	if (bytes == NULL)
		return;
	pgtd_deform_composite(type, PointerGetDatum(bytes), &values, &nulls);

	pgtd_put_char(out, '{');
	for (int i = 0; i < type->field_count; i++)
	{
		const PgtdField *field = &type->fields[i];

		if (i > 0)
			pgtd_put_char(out, ',');
		pgtd_put_bytes(out, field->member, field->member_len);
		if (nulls[field->index])
			pgtd_put_literal(out, "null");
		else
			pgtd_put_value(out, style, field->type, values[field->index]);
	}
	pgtd_put_char(out, '}');
}

void
pgtd_put_value(PgtdOut *out, const PgtdValueStyle *style, const PgtdType *type, Datum value)
{
	struct varlena *bytes;

	if (out->full)
		return;

	switch (type->kind)
	{
		case PGTD_BOOL:
			if (DatumGetBool(value))
				pgtd_put_literal(out, "true");
			else
				pgtd_put_literal(out, "false");
			return;
		case PGTD_INT2:
			pgtd_put_int64(out, DatumGetInt16(value));
			return;
		case PGTD_INT4:
			pgtd_put_int64(out, DatumGetInt32(value));
			return;
		case PGTD_INT8:
			if (style->bigint_as_string)
				pgtd_put_char(out, '"');
			pgtd_put_int64(out, DatumGetInt64(value));
			if (style->bigint_as_string)
				pgtd_put_char(out, '"');
			return;
		case PGTD_OID:
			pgtd_put_uint64(out, DatumGetObjectId(value));
			return;
		case PGTD_FLOAT4:
			put_float(out, DatumGetFloat4(value), true);
			return;
		case PGTD_FLOAT8:
			put_float(out, DatumGetFloat8(value), false);
			return;
		case PGTD_NUMERIC:
			bytes = pgtd_detoast_bounded(out, value);
			if (bytes != NULL)
				pgtd_put_numeric(out, bytes);
			return;
		case PGTD_TEXT:
			bytes = pgtd_detoast_bounded(out, value);
			if (bytes != NULL)
				pgtd_put_string(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			return;
		case PGTD_BYTEA:
			bytes = pgtd_detoast_bounded(out, value);
			pgtd_put_char(out, '"');
			if (bytes != NULL)
				pgtd_put_base64(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			pgtd_put_char(out, '"');
			return;
		case PGTD_DATE:
			pgtd_put_date(out, DatumGetDateADT(value));
			return;
		case PGTD_TIME:
			pgtd_put_time(out, DatumGetTimeADT(value));
			return;
		case PGTD_TIMETZ:
			pgtd_put_timetz(out, DatumGetTimeTzADTP(value));
			return;
		case PGTD_TIMESTAMP:
			pgtd_put_timestamp(out, DatumGetTimestamp(value), false);
			return;
		case PGTD_TIMESTAMPTZ:
			pgtd_put_timestamp(out, DatumGetTimestampTz(value), true);
			return;
		case PGTD_INTERVAL:
			pgtd_put_interval(out, DatumGetIntervalP(value));
			return;
		case PGTD_JSON:
			bytes = pgtd_detoast_bounded(out, value);
			if (bytes != NULL)
				put_json(out, style, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			return;
		case PGTD_JSONB:
			put_jsonb(out, style, value);
			return;
		case PGTD_ARRAY:
			put_array(out, style, type, value);
			return;
		case PGTD_COMPOSITE:
			put_composite(out, style, type, value);
			return;
		case PGTD_OUTPUT:
			put_output(out, type, value);
			return;
	}
}

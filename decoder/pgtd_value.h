/*
 * pgtd_value.h: from a Datum to JSON, or to bytes.
 *
 * A PgtdType says how values of one type are written: it is built once per relation, with
 * every look-up that it takes, so that writing a value reads no catalog. Nothing that is
 * written depends on a setting of the session.
 */
#ifndef PGTD_VALUE_H
#define PGTD_VALUE_H

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/date.h"

#include "pgtd_out.h"

typedef enum PgtdKind
{
	PGTD_BOOL,
	PGTD_INT2,
	PGTD_INT4,
	PGTD_INT8,
	PGTD_OID,
	PGTD_FLOAT4,
	PGTD_FLOAT8,
	PGTD_NUMERIC,
	PGTD_TEXT,
	PGTD_BYTEA,
	PGTD_DATE,
	PGTD_TIME,
	PGTD_TIMETZ,
	PGTD_TIMESTAMP,
	PGTD_TIMESTAMPTZ,
	PGTD_INTERVAL,
	PGTD_JSON,
	PGTD_JSONB,
	PGTD_ARRAY,
	PGTD_COMPOSITE,
	PGTD_OUTPUT /* the type's output function, as a string */
} PgtdKind;

typedef struct PgtdType
{
	PgtdKind kind;
	Oid type_id; /* base type of a domain */
	int16 len;
	bool by_value;
	char align;
	FmgrInfo output;		  /* of PGTD_OUTPUT */
	FmgrInfo send;			  /* of PGTD_OUTPUT; fn_oid invalid: it has none */
	struct PgtdType *element; /* of PGTD_ARRAY */
	struct PgtdField *fields; /* of PGTD_COMPOSITE */
	int field_count;
	TupleDesc desc; /* of PGTD_COMPOSITE, a copy */
} PgtdType;

typedef struct PgtdField
{
	int index;			/* in the tuple, from 0 */
	const char *member; /* "name": in UTF-8, escaped */
	Size member_len;
	PgtdType *type;
} PgtdField;

/* What the options and the envelope say about values. */
typedef struct PgtdValueStyle
{
	bool json_as_text; /* json and jsonb as a string, not embedded */
	bool bigint_as_string;
} PgtdValueStyle;

/* What a tree of types turned out to need. */
typedef struct PgtdTypeNeeds
{
	bool settings;		  /* some output function may read settings */
	bool client_encoding; /* some send function converts text to it */
	bool no_send;		  /* some value has no binary form */
	List *type_ids;		  /* types of users: what they look like may change */
	List *relation_ids;	  /* the composite ones among them */
} PgtdTypeNeeds;

/* Reads catalogs; results live in CurrentMemoryContext. Adds to needs. */
extern PgtdType *pgtd_make_type(const PgtdEncoding *encoding, Oid type_id, PgtdTypeNeeds *needs);
extern const char *pgtd_make_member(const PgtdEncoding *encoding, const char *name, Size *len);

/*
 * "type":..., with base and fields where it has them; what schema messages say of a type.
 * The caller has quote_all_identifiers off.
 */
extern void pgtd_put_type_members(PgtdOut *out, Oid type_id, int32 typmod);

/* Writes a value that is not NULL. Allocates in CurrentMemoryContext. */
extern void pgtd_put_value(PgtdOut *out, const PgtdValueStyle *style, const PgtdType *type,
						   Datum value);

/* binary_value.c: the same as what the type's send function writes, or nearly. */
extern void pgtd_put_binary_value(PgtdOut *out, const PgtdType *type, Datum value);
/* With its length, four bytes, before it. */
extern void pgtd_put_sized_binary_value(PgtdOut *out, const PgtdType *type, Datum value);

/*
 * A varlena without compression and toast. NULL, and "full" set, if it alone is larger than
 * a message may be: then it is not fetched at all.
 */
extern struct varlena *pgtd_detoast_bounded(PgtdOut *out, Datum value);
/* The text of a jsonb; NULL, and "full" set, if it has more than 1 GB. */
extern char *pgtd_make_jsonb_text(PgtdOut *out, struct varlena *jsonb);
/* The fields of a composite value that is not toasted, by their index. */
extern void pgtd_deform_composite(const PgtdType *type, Datum value, Datum **values, bool **nulls);
/* Would a function that makes text or bytes of it fail for size? Sets "full" then. */
extern bool pgtd_is_too_large(PgtdOut *out, const PgtdType *type, Datum value);

/* numeric.c; the value is not toasted. */
extern void pgtd_put_numeric(PgtdOut *out, const struct varlena *bytes);
extern void pgtd_put_binary_numeric(PgtdOut *out, const struct varlena *bytes);

/* datetime.c: ISO 8601, as a JSON string. */
extern void pgtd_put_date(PgtdOut *out, DateADT date);
extern void pgtd_put_time(PgtdOut *out, TimeADT time);
extern void pgtd_put_timetz(PgtdOut *out, const TimeTzADT *time);
extern void pgtd_put_timestamp(PgtdOut *out, Timestamp timestamp, bool is_utc);
extern void pgtd_put_interval(PgtdOut *out, const Interval *interval);

#endif /* PGTD_VALUE_H */

/*
 * image_fn.c: pgtrickle.row_hash(record), the expression of the identity index
 * of tables without a key.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/typcache.h"

#include "pgt_image.h"

PG_FUNCTION_INFO_V1(pgt_row_hash);

Datum
pgt_row_hash(PG_FUNCTION_ARGS)
{
	HeapTupleHeader record = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(record),
											HeapTupleHeaderGetTypMod(record));
	HeapTupleData tuple;
	Datum *values = palloc(sizeof(Datum) * desc->natts);
	bool *isnull = palloc(sizeof(bool) * desc->natts);
	uint64 hash;

	tuple.t_len = HeapTupleHeaderGetDatumLength(record);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = record;
	heap_deform_tuple(&tuple, desc, values, isnull);
	hash = pgt_image_hash(desc, values, isnull);
	ReleaseTupleDesc(desc);
	pfree(values);
	pfree(isnull);
	PG_FREE_IF_COPY(record, 0);
	PG_RETURN_INT64((int64) hash);
}

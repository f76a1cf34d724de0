/*
 * image.c: the image of a row, hashed and compared.
 *
 * The only place that knows what makes two rows the same row for a table
 * without a key, and whether a stored row has to be written again. The hash is
 * stored (expression index on pgtrickle.row_hash), so it must never change.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/memutils.h"

#include "pgt_compat.h"
#include "pgt_image.h"

#define NULL_SEED UINT64CONST(0x9ae16a3b2f90404f)

/* The bytes of a value passed by value: only as many as its type has. */
static uint64
byval_bits(Datum value, int16 typlen)
{
	switch (typlen)
	{
		case 1:
			return (uint8) value;
		case 2:
			return (uint16) value;
		case 4:
			return (uint32) value;
		default:
			return (uint64) value;
	}
}

/* Where the bytes of a value passed by reference are; free is what to pfree, or NULL. */
static const unsigned char *
byref_bytes(Datum value, int16 typlen, Size *length, void **free)
{
	*free = NULL;
	if (typlen == -1)
	{
		struct varlena *plain = PG_DETOAST_DATUM_PACKED(value);

		if ((Pointer) plain != DatumGetPointer(value))
			*free = plain;
		*length = VARSIZE_ANY_EXHDR(plain);
		return (const unsigned char *) VARDATA_ANY(plain);
	}
	*length = typlen == -2 ? strlen(DatumGetCString(value)) : (Size) typlen;
	return (const unsigned char *) DatumGetPointer(value);
}

uint64
pgt_image_hash(TupleDesc desc, const Datum *values, const bool *isnull)
{
	uint64 hash = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (isnull[i])
			hash = hash_combine64(hash, NULL_SEED);
		else if (attribute->attbyval)
		{
			uint64 bits = byval_bits(values[i], attribute->attlen);

			hash = hash_bytes_extended((const unsigned char *) &bits, sizeof(bits), hash);
		}
		else
		{
			Size length;
			void *free;
			const unsigned char *bytes = byref_bytes(values[i], attribute->attlen, &length, &free);

			hash = hash_bytes_extended(bytes, (int) length, hash);
			if (free != NULL)
				pfree(free);
		}
	}
	return hash;
}

static bool
equal_byref(Datum value1, Datum value2, int16 typlen)
{
	Size length1;
	Size length2;
	void *free1;
	void *free2;
	const unsigned char *bytes1;
	const unsigned char *bytes2;
	bool result;

	if (DatumGetPointer(value1) == DatumGetPointer(value2))
		return true;
	bytes1 = byref_bytes(value1, typlen, &length1, &free1);
	bytes2 = byref_bytes(value2, typlen, &length2, &free2);
	result = length1 == length2 && memcmp(bytes1, bytes2, length1) == 0;
	if (free1 != NULL)
		pfree(free1);
	if (free2 != NULL)
		pfree(free2);
	return result;
}

bool
pgt_image_equal(TupleDesc desc, const Datum *values1, const bool *isnull1, const Datum *values2,
				const bool *isnull2)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (isnull1[i] != isnull2[i])
			return false;
		if (isnull1[i])
			continue;
		if (attribute->attbyval)
		{
			if (byval_bits(values1[i], attribute->attlen) !=
				byval_bits(values2[i], attribute->attlen))
				return false;
		}
		else if (!equal_byref(values1[i], values2[i], attribute->attlen))
			return false;
	}
	return true;
}

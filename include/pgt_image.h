/*
 * pgt_image.h: rows compared and hashed by their bytes. (module: refresh)
 *
 * The image of a value is its detoasted bytes: 1.0 and 1.00, or 'a' and 'A'
 * under a case-insensitive collation, are equal and have different images.
 * Nothing here depends on a setting, a collation or an operator, so hashes can
 * be stored in an index.
 */
#ifndef PGT_IMAGE_H
#define PGT_IMAGE_H

#include "postgres.h"

#include "access/tupdesc.h"

extern uint64 pgt_image_hash(TupleDesc desc, const Datum *values, const bool *isnull);
extern bool pgt_image_equal(TupleDesc desc, const Datum *values1, const bool *isnull1,
							const Datum *values2, const bool *isnull2);

#endif /* PGT_IMAGE_H */

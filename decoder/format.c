/*
 * format.c: the list of formats.
 */
#include "postgres.h"

#include "pgtd_format.h"

static const PgtdFormat *const formats[] = {&pgtd_format_json, &pgtd_format_binary};

const PgtdFormat *
pgtd_find_format(const char *name)
{
	for (int i = 0; i < lengthof(formats); i++)
	{
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	}
	return NULL;
}

const PgtdEnvelope *
pgtd_find_envelope(const PgtdFormat *format, const char *name)
{
	for (const PgtdEnvelope *envelope = format->envelopes; envelope->name != NULL; envelope++)
	{
		if (strcmp(envelope->name, name) == 0)
			return envelope;
	}
	return NULL;
}

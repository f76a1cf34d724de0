/*
 * alert.c: events for whoever listens on channel pg_trickle_alert.
 *
 * Sent by the coordinator only, never by a writer: NOTIFY takes a lock that
 * all committing notifiers of the cluster share.
 */
#include "postgres.h"

#include "commands/async.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#include "sched_internal.h"

#define CHANNEL "pg_trickle_alert"
#define LONGEST_TEXT 2000 /* a payload has less than 8000 bytes */

char *
pgt_alert_quote(const char *text)
{
	StringInfoData json;

	initStringInfo(&json);
	escape_json(&json, pnstrdup(text, pg_mbcliplen(text, strlen(text), LONGEST_TEXT)));
	return json.data;
}

void
pgt_alert_send(const char *event, const SchedTable *table, const char *details)
{
	char *schema = get_namespace_name(get_rel_namespace(table->st.relid));
	char *name = get_rel_name(table->st.relid);
	StringInfoData json;

	if (name == NULL || schema == NULL)
		return;
	initStringInfo(&json);
	appendStringInfo(&json,
					 "{\"event\":\"%s\",\"pgt_id\":" INT64_FORMAT
					 ",\"pgt_schema\":%s,\"pgt_name\":%s%s%s}",
					 event, table->st.pgt_id, pgt_alert_quote(schema), pgt_alert_quote(name),
					 details != NULL ? "," : "", details != NULL ? details : "");
	Async_Notify(CHANNEL, json.data);
}

void
pgt_alert_send_source(const char *event, Oid relid, const char *details)
{
	char *schema = get_namespace_name(get_rel_namespace(relid));
	char *name = get_rel_name(relid);

	if (name == NULL || schema == NULL)
		return;
	Async_Notify(CHANNEL, psprintf("{\"event\":\"%s\",\"source_schema\":%s,\"source_name\":%s,%s}",
								   event, pgt_alert_quote(schema), pgt_alert_quote(name), details));
}

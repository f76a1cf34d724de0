/*
 * Follow.java: runs Debezium connectors in one process, as a worker of Kafka Connect does, and
 * writes what each emits to a file.
 *
 *   java -cp 'JARS/*' Follow.java connector.properties events.jsonl [...]
 *
 * Each record is one line, {"topic":..., "key":..., "value":...}, written out before its
 * offset may be stored: what a consumer has, when the program is killed, is what the file has.
 * Ends in order on SIGTERM, and when a connector fails, with status 1.
 */
import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;

public class Follow
{
	private static final List<DebeziumEngine<ChangeEvent<String, String>>> engines =
		new ArrayList<>();
	private static final CountDownLatch stop = new CountDownLatch(1);
	private static volatile boolean failed = false;

	public static void main(String[] args) throws Exception
	{
		CountDownLatch ended = new CountDownLatch(args.length / 2);

		for (int i = 0; i + 1 < args.length; i += 2)
		{
			DebeziumEngine<ChangeEvent<String, String>> engine = build(args[i], args[i + 1]);

			engines.add(engine);
			new Thread(() -> {
				engine.run();
				ended.countDown();
				stop.countDown();
			}).start();
		}
		Runtime.getRuntime().addShutdownHook(new Thread(() -> {
			try
			{
				stop.countDown();
				ended.await();
			}
			catch (InterruptedException e)
			{
				failed = true;
			}
			Runtime.getRuntime().halt(failed ? 1 : 0);
		}));
		stop.await();
		for (var engine : engines)
		{
			try
			{
				engine.close();
			}
			catch (IllegalStateException e)
			{
				/* It has ended by itself. */
			}
		}
		ended.await();
		System.exit(0);
	}

	private static DebeziumEngine<ChangeEvent<String, String>> build(String properties, String file)
		throws IOException
	{
		Properties config = new Properties();
		OutputStream out = new FileOutputStream(file, true);

		try (var reader = Files.newBufferedReader(Path.of(properties)))
		{
			config.load(reader);
		}
		return DebeziumEngine.create(Json.class)
			.using(config)
			.notifying(event -> write(out, event))
			.using((success, message, error) -> {
				if (success)
					return;
				failed = true;
				System.err.println("connector failed: " + message);
			})
			.build();
	}

	private static void write(OutputStream out, ChangeEvent<String, String> event)
	{
		String line = "{\"topic\":\"" + event.destination() + "\",\"key\":" + event.key() +
					  ",\"value\":" + event.value() + "}\n";

		try
		{
			out.write(line.getBytes(StandardCharsets.UTF_8));
			out.flush();
		}
		catch (IOException e)
		{
			throw new UncheckedIOException(e);
		}
	}
}

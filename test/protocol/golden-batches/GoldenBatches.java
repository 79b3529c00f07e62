// Makes vectors.json: record batches and key hashes as Kafka's own Java client writes them.
//   java -cp 'kafka-clients-4.4.0.jar:…its dependencies…' GoldenBatches.java write > vectors.json
// With `read` it does the reverse: lines of base64 batches in, one line per record out, as Kafka reads them.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Scanner;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.Utils;

public class GoldenBatches {
    static final long T = 1700000000000L;
    static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};

    record Rec(long timestamp, byte[] key, byte[] value, Header[] headers) {}

    public static void main(String[] args) {
        if (args.length > 0 && args[0].equals("read")) read();
        else write();
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static Rec rec(long timestamp, String key, String value, Header... headers) {
        return new Rec(timestamp, key == null ? null : utf8(key), value == null ? null : utf8(value), headers);
    }

    static List<Rec> plain() {
        return List.of(rec(T, "k1", "first"), rec(T + 5, "k2", "second"), rec(T + 9, "k1", "third"));
    }

    static List<Rec> odd() {
        return List.of(
            rec(T, null, "no key"), rec(T - 70000, "no value", null), rec(T + 100000000000L, null, null),
            rec(T, "", ""), rec(-1, "no time", "x"),
            rec(T, "h", "headers", new RecordHeader("a", utf8("1")), new RecordHeader("", null), new RecordHeader("ü", new byte[0])),
            rec(T + 1, "long", "y".repeat(300), new RecordHeader("b", utf8("z".repeat(200)))));
    }

    static List<Rec> large() {
        List<Rec> records = new ArrayList<>();
        for (int i = 0; i < 300; i++) records.add(rec(T + i * 10L, "key-" + i % 7, ("value-" + i + "-").repeat(40)));
        return records;
    }

    static void write() {
        List<String> batches = new ArrayList<>();
        for (String codec : CODECS) {
            batches.add(batch("plain", codec, plain(), TimestampType.CREATE_TIME, 0, -1, -1, -1, false, -1));
            batches.add(batch("odd", codec, odd(), TimestampType.CREATE_TIME, 1234567890123L, -1, -1, -1, false, 7));
            batches.add(batch("idempotent", codec, plain(), TimestampType.CREATE_TIME, 42, 9007, 3, 2147483646, false, 0));
            batches.add(batch("transactional", codec, plain(), TimestampType.CREATE_TIME, 42, 9007, 3, 11, true, 0));
            batches.add(batch("append time", codec, plain(), TimestampType.LOG_APPEND_TIME, 5, -1, -1, -1, false, 1));
            if (!codec.equals("none")) {
                batches.add(batch("large", codec, large(), TimestampType.CREATE_TIME, 0, -1, -1, -1, false, -1));
            }
        }
        List<String> markers = List.of(marker("commit", ControlRecordType.COMMIT), marker("abort", ControlRecordType.ABORT));
        List<String> keys = new ArrayList<>();
        for (String key : new String[] {"", "a", "ab", "abc", "abcd", "order-17", "Grüße", "x".repeat(100)}) keys.add(key(utf8(key)));
        keys.add(key(new byte[] {(byte) 0xff, (byte) 0x80, 0, 127, (byte) 0xfe}));
        System.out.println("{\n\"batches\": [\n" + String.join(",\n", batches) + "\n],\n\"markers\": [\n"
            + String.join(",\n", markers) + "\n],\n\"keys\": [\n" + String.join(",\n", keys) + "\n]\n}");
    }

    static String batch(String name, String codec, List<Rec> records, TimestampType type, long baseOffset,
                        long producerId, int epoch, int sequence, boolean isTransactional, int leaderEpoch) {
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(ByteBuffer.allocate(1024), RecordBatch.MAGIC_VALUE_V2,
            Compression.of(codec).build(), type, baseOffset, T + 77, producerId, (short) epoch, sequence, isTransactional,
            false, leaderEpoch, 10000000);
        for (Rec r : records) builder.append(r.timestamp, r.key, r.value, r.headers);
        return "{\"name\": \"" + name + "\", \"codec\": \"" + codec + "\", \"batch\": \"" + base64(builder.build()) + "\"}";
    }

    static String marker(String name, ControlRecordType type) {
        MemoryRecords records = MemoryRecords.withEndTransactionMarker(8, T, 2, 9007, (short) 3, new EndTransactionMarker(type, 6));
        return "{\"name\": \"" + name + "\", \"batch\": \"" + base64(records) + "\"}";
    }

    static String key(byte[] key) {
        return "{\"key\": \"" + HexFormat.of().formatHex(key) + "\", \"murmur2\": " + Utils.murmur2(key)
            + ", \"of6\": " + BuiltInPartitioner.partitionForKey(key, 6) + ", \"of1000\": "
            + BuiltInPartitioner.partitionForKey(key, 1000) + "}";
    }

    static String base64(MemoryRecords records) {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return Base64.getEncoder().encodeToString(bytes);
    }

    static void read() {
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Base64.getDecoder().decode(lines.nextLine())));
            for (RecordBatch batch : records.batches()) {
                batch.ensureValid();
                System.out.println("batch " + batch.baseOffset() + " " + batch.lastOffset() + " " + batch.maxTimestamp() + " "
                    + batch.compressionType().name + " " + batch.producerId() + " " + batch.producerEpoch() + " "
                    + batch.baseSequence() + " " + batch.isTransactional() + " " + batch.isControlBatch() + " "
                    + batch.partitionLeaderEpoch());
                for (Record r : batch) {
                    StringBuilder line = new StringBuilder("record " + r.offset() + " " + r.timestamp() + " " + hex(r.key()) + " " + hex(r.value()));
                    for (Header h : r.headers()) line.append(" ").append(hex(ByteBuffer.wrap(utf8(h.key())))).append("=").append(h.value() == null ? "null" : hex(ByteBuffer.wrap(h.value())));
                    System.out.println(line);
                }
            }
        }
    }

    static String hex(ByteBuffer buffer) {
        if (buffer == null) return "null";
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return "'" + HexFormat.of().formatHex(bytes) + "'";
    }
}

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * What members of share groups see, one scenario a line. Argument: bootstrap servers.
 *
 * Lines in:   SCENARIO TOPIC GROUP [NUMBER]   or   exit
 * Lines out:  ready   result TOPIC TEXT (of the scenario)   e TOPIC TEXT (it failed)   held COUNT (of `hold`, which then waits)
 */
public class ShareMembers {
    static String bootstrap;

    static KafkaShareConsumer<byte[], byte[]> member(String group, String topic, String... settings) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("group.id", group);
        for (int i = 0; i < settings.length; i += 2) config.put(settings[i], settings[i + 1]);
        KafkaShareConsumer<byte[], byte[]> consumer =
                new KafkaShareConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    static KafkaShareConsumer<byte[], byte[]> explicit(String group, String topic, String... settings) {
        List<String> all = new ArrayList<>(List.of(settings));
        all.add("share.acknowledgement.mode");
        all.add("explicit");
        return member(group, topic, all.toArray(new String[0]));
    }

    static void prepare(String topic, String group, int partitions, String... groupConfigs) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
            Collection<AlterConfigOp> ops = new ArrayList<>();
            ops.add(new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET));
            for (int i = 0; i < groupConfigs.length; i += 2) {
                ConfigEntry entry = new ConfigEntry(groupConfigs[i], groupConfigs[i + 1]);
                ops.add(new AlterConfigOp(entry, AlterConfigOp.OpType.SET));
            }
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, group), ops)).all().get();
        }
    }

    static void produce(String topic, int count, int partitions) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < count; i++) {
                producer.send(new ProducerRecord<>(topic, i % partitions, null, Integer.toString(i).getBytes()));
            }
        }
    }

    interface Handler {
        void handle(ConsumerRecord<byte[], byte[]> record);
    }

    /** Polls until `count` records were handled, or nothing came for `quietMs`. Answers how many. */
    static int take(KafkaShareConsumer<byte[], byte[]> consumer, int count, long quietMs, Handler handler) {
        int taken = 0;
        long last = System.nanoTime();
        while (taken < count && System.nanoTime() - last < quietMs * 1_000_000L) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
            for (ConsumerRecord<byte[], byte[]> record : records) {
                handler.handle(record);
                taken++;
            }
            if (!records.isEmpty()) last = System.nanoTime();
        }
        return taken;
    }

    static String errors(Map<TopicIdPartition, Optional<KafkaException>> results) {
        StringBuilder text = new StringBuilder();
        results.values().forEach(error -> text.append(error.map(one -> one.getClass().getSimpleName()).orElse("ok")));
        return text.toString();
    }

    static String run(String scenario, String topic, String group, int number) throws Exception {
        switch (scenario) {
            case "implicit" -> {
                prepare(topic, group, 1);
                produce(topic, 20, 1);
                int first;
                try (var consumer = member(group, topic)) {
                    first = take(consumer, 20, 10_000, record -> {});
                }
                try (var consumer = member(group, topic)) {
                    return first + " then " + take(consumer, 1, 1_500, record -> {});
                }
            }
            case "explicit" -> {
                prepare(topic, group, 1);
                produce(topic, 9, 1);
                TreeMap<Long, String> seen = new TreeMap<>();
                StringBuilder answers = new StringBuilder();
                try (var consumer = explicit(group, topic)) {
                    AcknowledgeType[] types = {AcknowledgeType.ACCEPT, AcknowledgeType.RELEASE, AcknowledgeType.REJECT};
                    take(consumer, 9, 10_000, record -> {
                        seen.merge(record.offset(), record.deliveryCount().get().toString(), (a, b) -> a + b);
                        consumer.acknowledge(record, types[(int) (record.offset() % 3)]);
                    });
                    answers.append(errors(consumer.commitSync()));
                    take(consumer, 3, 10_000, record -> {
                        seen.merge(record.offset(), record.deliveryCount().get().toString(), (a, b) -> a + b);
                        consumer.acknowledge(record);
                    });
                    answers.append(" ").append(errors(consumer.commitSync()));
                    int rest = take(consumer, 1, 1_500, record -> {});
                    return seen + " " + answers + " " + rest;
                }
            }
            case "renew" -> {
                prepare(topic, group, 1, "share.record.lock.duration.ms", "2000");
                produce(topic, 1, 1);
                try (var consumer = explicit(group, topic); var other = explicit(group, topic)) {
                    List<ConsumerRecord<byte[], byte[]>> held = new ArrayList<>();
                    take(consumer, 1, 10_000, held::add);
                    StringBuilder answers = new StringBuilder();
                    int stolen = 0;
                    for (int round = 0; round < 4; round++) {
                        consumer.acknowledge(held.get(held.size() - 1), AcknowledgeType.RENEW);
                        answers.append(errors(consumer.commitSync()));
                        stolen += take(other, 1, 1_000, record -> {});
                        take(consumer, 1, 2_000, held::add);
                    }
                    consumer.acknowledge(held.get(held.size() - 1), AcknowledgeType.ACCEPT);
                    answers.append(errors(consumer.commitSync()));
                    stolen += take(other, 1, 2_500, record -> {});
                    int lock = consumer.acquisitionLockTimeoutMs().orElse(-1);
                    short count = held.get(held.size() - 1).deliveryCount().get();
                    return "held " + held.size() + " count " + count + " stolen " + stolen + " lock " + lock + " " + answers;
                }
            }
            case "limit" -> {
                prepare(topic, group, 1, "share.delivery.count.limit", "3");
                produce(topic, 2, 1);
                AtomicInteger deliveries = new AtomicInteger();
                try (var consumer = explicit(group, topic)) {
                    // The second is accepted at once: it must not be taken along.
                    take(consumer, 100, 2_500, record -> {
                        deliveries.incrementAndGet();
                        consumer.acknowledge(record, record.offset() == 0 ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
                    });
                }
                return deliveries.toString();
            }
            case "expiry" -> {
                prepare(topic, group, 1, "share.record.lock.duration.ms", "1500");
                produce(topic, 5, 1);
                try (var late = explicit(group, topic)) {
                    List<ConsumerRecord<byte[], byte[]>> held = new ArrayList<>();
                    take(late, 5, 10_000, held::add);
                    StringBuilder counts = new StringBuilder();
                    String answer;
                    try (var next = explicit(group, topic)) {
                        take(next, 5, 10_000, record -> {
                            counts.append(record.deliveryCount().get());
                            next.acknowledge(record);
                        });
                        held.forEach(record -> late.acknowledge(record));
                        answer = errors(late.commitSync()) + " " + errors(next.commitSync());
                    }
                    return held.size() + " " + counts + " " + answer;
                }
            }
            case "close" -> {
                prepare(topic, group, 1);
                produce(topic, 10, 1);
                int first;
                try (var consumer = explicit(group, topic)) {
                    first = take(consumer, 10, 10_000, record -> {});
                }
                StringBuilder counts = new StringBuilder();
                try (var consumer = member(group, topic)) {
                    take(consumer, 10, 10_000, record -> counts.append(record.deliveryCount().get()));
                }
                return first + " " + counts;
            }
            case "limit-mode" -> {
                prepare(topic, group, 1);
                produce(topic, 30, 1);
                StringBuilder sizes = new StringBuilder();
                try (var consumer = member(group, topic, "share.acquire.mode", "record_limit", "max.poll.records", "7")) {
                    int left = 30;
                    long end = System.nanoTime() + 15_000_000_000L;
                    while (left > 0 && System.nanoTime() < end) {
                        int size = consumer.poll(Duration.ofMillis(200)).count();
                        if (size > 0) sizes.append(size).append(' ');
                        left -= size;
                    }
                }
                return sizes.toString().trim();
            }
            case "compete" -> {
                int partitions = 4;
                AtomicInteger records = new AtomicInteger(Integer.MAX_VALUE);
                prepare(topic, group, partitions);
                Map<String, AtomicInteger> seen = new ConcurrentHashMap<>();
                AtomicInteger total = new AtomicInteger();
                int[] own = new int[number];
                AtomicInteger ready = new AtomicInteger();
                List<Thread> threads = new ArrayList<>();
                for (int index = 0; index < number; index++) {
                    int at = index;
                    Thread thread = new Thread(() -> {
                        try (var consumer = member(group, topic, "max.poll.records", "50")) {
                            consumer.poll(Duration.ofMillis(500));
                            ready.incrementAndGet();
                            long end = System.nanoTime() + 45_000_000_000L;
                            long quiet = System.nanoTime();
                            while (System.nanoTime() < end) {
                                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                                    String place = record.partition() + "-" + record.offset();
                                    seen.computeIfAbsent(place, key -> new AtomicInteger()).incrementAndGet();
                                    own[at]++;
                                    total.incrementAndGet();
                                    quiet = System.nanoTime();
                                }
                                if (seen.size() == records.get() && System.nanoTime() - quiet > 1_000_000_000L) break;
                            }
                        }
                    });
                    threads.add(thread);
                    thread.start();
                }
                while (ready.get() < number) Thread.sleep(20);
                // Until everybody has partitions and got something; then the rest at once.
                long until = System.nanoTime() + 20_000_000_000L;
                int sent = 0;
                while (Arrays.stream(own).anyMatch(count -> count == 0) && System.nanoTime() < until) {
                    produce(topic, 20 * number, partitions);
                    sent += 20 * number;
                    Thread.sleep(200);
                }
                records.set(sent + 5000);
                produce(topic, 5000, partitions);
                for (Thread thread : threads) thread.join();
                int idle = 0;
                for (int count : own) if (count == 0) idle++;
                return "missed " + (records.get() - seen.size()) + " twice " + (total.get() - seen.size()) + " idle " + idle;
            }
            case "hold" -> {
                prepare(topic, group, 1);
                produce(topic, number, 1);
                var consumer = explicit(group, topic);
                int taken = take(consumer, number, 10_000, record -> {});
                System.out.println("held " + taken);
                Thread.sleep(60_000);
                return "";
            }
            case "drain" -> {
                StringBuilder counts = new StringBuilder();
                try (var consumer = member(group, topic)) {
                    take(consumer, number, 20_000, record -> counts.append(record.deliveryCount().get()));
                }
                return counts.toString();
            }
            default -> throw new IllegalArgumentException(scenario);
        }
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        System.out.println("ready");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null && !line.equals("exit"); line = in.readLine()) {
            String[] words = line.split(" ");
            new Thread(() -> {
                String id = words[1];
                try {
                    int number = words.length > 3 ? Integer.parseInt(words[3]) : 0;
                    System.out.println("result " + id + " " + run(words[0], words[1], words[2], number));
                } catch (Throwable error) {
                    System.out.println("e " + id + " " + error);
                    error.printStackTrace();
                }
            }).start();
        }
        System.exit(0);
    }
}

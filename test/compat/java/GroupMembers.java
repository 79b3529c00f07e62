import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Consumers of one group, many in a process, and a producer. Arguments: bootstrap servers, topic, group.
 *
 * Lines in:   start NAME PROTOCOL [ASSIGNOR|- [INSTANCE]]   leave NAME   drop NAME (closes without leaving the group)
 *             create PARTITIONS (the topic)   produce RECORDS_PER_SECOND   halt (the producer)   exit
 * Lines out:  ready   created   h NAME PARTITION FIRST LAST NANOS (handled)   c NAME PARTITION OFFSET NANOS (committed, told so)
 *             a NAME PARTITION,...  (has from now on)   gone NAME   e NAME TEXT   p PARTITION OFFSET   halted
 *
 * NANOS is the monotonic clock of the machine, the same for all processes: of a poll's return, of a commit's answer.
 */
public class GroupMembers {
    static String bootstrap;
    static String topic;
    static String group;
    static final Map<String, Member> members = new ConcurrentHashMap<>();
    static volatile boolean isProducing;

    static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
        }
    }

    static final class Member extends Thread {
        final String id;
        final Properties config = new Properties();
        volatile String end;
        String shown = "";

        Member(String id, String protocol, String assignor, String instance) {
            this.id = id;
            config.put("bootstrap.servers", bootstrap);
            config.put("group.id", group);
            config.put("client.id", id);
            config.put("group.protocol", protocol);
            config.put("enable.auto.commit", "false");
            config.put("auto.offset.reset", "earliest");
            config.put("max.poll.records", "200");
            if (protocol.equals("classic")) {
                config.put("session.timeout.ms", "6000");
                config.put("heartbeat.interval.ms", "300");
                if (!assignor.equals("-")) {
                    String prefix = "org.apache.kafka.clients.consumer.";
                    config.put("partition.assignment.strategy", prefix + assignor.replace(",", "," + prefix));
                }
            }
            if (instance != null) config.put("group.instance.id", instance);
        }

        void show(Collection<TopicPartition> assigned) {
            TreeSet<Integer> sorted = new TreeSet<>();
            for (TopicPartition partition : assigned) sorted.add(partition.partition());
            String text = sorted.toString().replaceAll("[\\[\\] ]", "");
            if (text.equals(shown)) return;
            shown = text;
            say("a " + id + " " + text);
        }

        @Override
        public void run() {
            KafkaConsumer<byte[], byte[]> consumer =
                    new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            try {
                consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}
                    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}
                });
                while (end == null) step(consumer);
            } catch (Throwable error) {
                say("e " + id + " " + error);
            } finally {
                CloseOptions.GroupMembershipOperation operation = "drop".equals(end)
                        ? CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP
                        : CloseOptions.GroupMembershipOperation.LEAVE_GROUP;
                try {
                    consumer.close(CloseOptions.timeout(Duration.ofSeconds(5)).withGroupMembershipOperation(operation));
                } catch (Throwable error) {
                    say("e " + id + " " + error);
                }
                say("a " + id + " ");
                say("gone " + id);
            }
        }

        void step(KafkaConsumer<byte[], byte[]> consumer) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
            long handled = System.nanoTime();
            show(consumer.assignment());
            if (records.isEmpty()) return;
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            for (TopicPartition partition : records.partitions()) {
                List<ConsumerRecord<byte[], byte[]>> list = records.records(partition);
                long first = list.get(0).offset();
                long last = list.get(list.size() - 1).offset();
                offsets.put(partition, new OffsetAndMetadata(last + 1));
                say("h " + id + " " + partition.partition() + " " + first + " " + last + " " + handled);
            }
            try {
                consumer.commitSync(offsets);
                long committed = System.nanoTime();
                offsets.forEach((partition, offset) ->
                        say("c " + id + " " + partition.partition() + " " + offset.offset() + " " + committed));
            } catch (org.apache.kafka.common.KafkaException error) {
                // Whoever has the partition next handles them again.
                say("x " + id + " " + error.getClass().getSimpleName());
            }
        }
    }

    static void produce(int perSecond) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("acks", "all");
        config.put("linger.ms", "5");
        Map<Integer, Long> ends = new ConcurrentHashMap<>();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            long start = System.nanoTime();
            long sent = 0;
            int partitions = producer.partitionsFor(topic).size();
            while (isProducing) {
                long due = (System.nanoTime() - start) * perSecond / 1_000_000_000L;
                for (; sent < due; sent++) {
                    byte[] value = Long.toString(sent).getBytes();
                    producer.send(new ProducerRecord<>(topic, (int) (sent % partitions), null, value), (metadata, error) -> {
                        if (error != null) say("e producer " + error);
                        else ends.merge(metadata.partition(), metadata.offset() + 1, Math::max);
                    });
                }
                Thread.sleep(20);
            }
            producer.flush();
        } catch (InterruptedException error) {
            say("e producer " + error);
        }
        ends.forEach((partition, offset) -> say("p " + partition + " " + offset));
        say("halted");
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        topic = args[1];
        group = args[2];
        say("ready");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "start" -> {
                    String assignor = words.length > 3 ? words[3] : "-";
                    Member member = new Member(words[1], words[2], assignor, words.length > 4 ? words[4] : null);
                    members.put(words[1], member);
                    member.start();
                }
                case "create" -> {
                    try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
                        NewTopic created = new NewTopic(topic, Integer.parseInt(words[1]), (short) 1);
                        admin.createTopics(List.of(created)).all().get();
                    }
                    say("created");
                }
                case "leave", "drop" -> members.remove(words[1]).end = words[0];
                case "produce" -> {
                    isProducing = true;
                    int perSecond = Integer.parseInt(words[1]);
                    new Thread(() -> produce(perSecond)).start();
                }
                case "halt" -> isProducing = false;
                default -> {
                    System.exit(0);
                }
            }
        }
        System.exit(0);
    }
}

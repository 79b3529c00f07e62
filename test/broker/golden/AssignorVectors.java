// Writes consumer-assignors.jsonl: groups drawn at random, and what Apache Kafka's own assignors of consumer groups make
// of them. Run where Kafka's jars are (kafka-group-coordinator 4.4.0 with what it needs), from this file's folder:
//
//   java -cp 'JARS/*' AssignorVectors.java > consumer-assignors.jsonl
//
// A line is one group over several rounds: in each members come and go, subscriptions and partition counts change, and
// what the last round assigned is what members have. Maps keep their order, so that ties do not hang on hash codes.

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.group.api.assignor.ConsumerGroupPartitionAssignor;
import org.apache.kafka.coordinator.group.api.assignor.GroupAssignment;
import org.apache.kafka.coordinator.group.api.assignor.SubscribedTopicDescriber;
import org.apache.kafka.coordinator.group.api.assignor.SubscriptionType;
import org.apache.kafka.coordinator.group.assignor.RangeAssignor;
import org.apache.kafka.coordinator.group.assignor.UniformAssignor;
import org.apache.kafka.coordinator.group.modern.Assignment;
import org.apache.kafka.coordinator.group.modern.GroupSpecImpl;
import org.apache.kafka.coordinator.group.modern.MemberSubscriptionAndAssignmentImpl;

public class AssignorVectors {
    static final int GROUPS = 40;
    static final int ROUNDS = 3;
    static final class Member {
        String id;
        String instance;
        Set<Uuid> topics;
        Map<Uuid, Set<Integer>> current = new LinkedHashMap<>();
    }

    static Uuid topic(int number) {
        return new Uuid(0x1000L, 0x8000000000000000L + number);
    }

    static String name(Uuid id) {
        return "t" + (id.getLeastSignificantBits() - 0x8000000000000000L);
    }

    public static void main(String[] args) {
        Random random = new Random(20240607);
        for (int group = 0; group < GROUPS; group++) {
            for (ConsumerGroupPartitionAssignor assignor : List.of(new UniformAssignor(), new RangeAssignor())) {
                System.out.println(line(assignor, group % 2 == 0, new Random(random.nextInt())));
            }
        }
    }

    static String line(ConsumerGroupPartitionAssignor assignor, boolean isAlike, Random random) {
        Map<Uuid, Integer> counts = new LinkedHashMap<>();
        int topicCount = 1 + random.nextInt(5);
        for (int number = 0; number < topicCount; number++) counts.put(topic(number), random.nextInt(12));
        List<Member> members = new ArrayList<>();
        List<String> rounds = new ArrayList<>();
        Set<Uuid> alike = new LinkedHashSet<>(counts.keySet());
        int nextId = 0;
        for (int round = 0; round < ROUNDS; round++) {
            while (members.size() > 1 && random.nextInt(3) == 0) members.remove(random.nextInt(members.size()));
            int coming = round == 0 ? 1 + random.nextInt(7) : random.nextInt(3);
            for (int count = 0; count < coming; count++) {
                Member member = new Member();
                member.id = "m" + (char) ('a' + random.nextInt(26)) + nextId++;
                member.instance = random.nextInt(4) == 0 ? "i" + random.nextInt(1000) : null;
                member.topics = isAlike ? alike : some(counts, random);
                members.add(member);
            }
            if (!isAlike && random.nextInt(2) == 0) {
                members.get(random.nextInt(members.size())).topics = some(counts, random);
            }
            if (round > 0 && random.nextInt(2) == 0) {
                Uuid grown = topic(random.nextInt(topicCount));
                counts.merge(grown, random.nextInt(4), Integer::sum);
            }
            Map<String, MemberSubscriptionAndAssignmentImpl> spec = new LinkedHashMap<>();
            Map<Uuid, Map<Integer, String>> inverted = new HashMap<>();
            List<String> shown = new ArrayList<>();
            for (Member member : members) {
                spec.put(member.id, new MemberSubscriptionAndAssignmentImpl(
                        Optional.empty(), Optional.ofNullable(member.instance), member.topics, new Assignment(member.current)));
                member.current.forEach((id, partitions) -> partitions.forEach(
                        partition -> inverted.computeIfAbsent(id, key -> new HashMap<>()).put(partition, member.id)));
                shown.add("{\"id\":\"" + member.id + "\",\"instanceId\":"
                        + (member.instance == null ? "null" : "\"" + member.instance + "\"")
                        + ",\"topics\":[" + String.join(",", member.topics.stream().map(id -> "\"" + name(id) + "\"").toList())
                        + "]}");
            }
            boolean same = members.stream().allMatch(member -> member.topics.equals(members.get(0).topics));
            SubscribedTopicDescriber describer = new SubscribedTopicDescriber() {
                public int numPartitions(Uuid id) {
                    return counts.getOrDefault(id, -1);
                }
                public Set<String> racksForPartition(Uuid id, int partition) {
                    return Set.of();
                }
            };
            GroupAssignment assigned = assignor.assign(
                    new GroupSpecImpl(spec, same ? SubscriptionType.HOMOGENEOUS : SubscriptionType.HETEROGENEOUS, inverted),
                    describer);
            Map<String, String> result = new TreeMap<>();
            for (Member member : members) {
                Map<Uuid, Set<Integer>> sorted = new LinkedHashMap<>();
                assigned.members().get(member.id).partitions().forEach((id, set) -> sorted.put(id, new TreeSet<>(set)));
                // By topic, whatever the order of Kafka's own map.
                Map<String, Set<Integer>> named = new TreeMap<>();
                sorted.forEach((id, set) -> {
                    if (!set.isEmpty()) named.put(name(id), set);
                });
                member.current = new LinkedHashMap<>();
                for (Uuid id : counts.keySet()) if (sorted.containsKey(id)) member.current.put(id, sorted.get(id));
                List<String> parts = new ArrayList<>();
                named.forEach((id, set) -> parts.add("\"" + id + "\":" + set.toString().replace(" ", "")));
                result.put(member.id, "{" + String.join(",", parts) + "}");
            }
            List<String> sizes = new ArrayList<>();
            counts.forEach((id, count) -> sizes.add("\"" + name(id) + "\":" + count));
            List<String> results = new ArrayList<>();
            result.forEach((id, parts) -> results.add("\"" + id + "\":" + parts));
            rounds.add("{\"partitions\":{" + String.join(",", sizes) + "},\"members\":[" + String.join(",", shown)
                    + "],\"assignment\":{" + String.join(",", results) + "}}");
        }
        return "{\"assignor\":\"" + assignor.name() + "\",\"rounds\":[" + String.join(",", rounds) + "]}";
    }

    static Set<Uuid> some(Map<Uuid, Integer> counts, Random random) {
        Set<Uuid> chosen = new LinkedHashSet<>();
        for (Uuid id : counts.keySet()) if (random.nextInt(3) > 0) chosen.add(id);
        if (chosen.isEmpty()) chosen.add(topic(random.nextInt(counts.size())));
        return chosen;
    }
}

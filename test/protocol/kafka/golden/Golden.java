// Writes golden.tsv: for every message and version, bytes made by Kafka's own serializers and the value that Kafka's own
// deserializer reads back from them. Run where Kafka's jars are (kafka-clients and kafka-group-coordinator 4.4.0 with
// what they need: kafka-coordinator-common, kafka-server-common, slf4j-api), from the folder this file is in:
//
//   java -cp 'JARS/*' Golden.java > ../golden.tsv
//
// A line: message, version, bytes in base64, value as JSON (bytes and records in base64 after "b:", uuids with hyphens).
// Two lines a version: one with every field away from its default, one with defaults, and nulls where allowed.

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.List;
import java.util.Random;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ShareFetchRequestData;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;

public class Golden {
    static final String[] APIS = {
        "Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup",
        "Heartbeat", "LeaveGroup", "SyncGroup", "DescribeGroups", "ListGroups", "ApiVersions", "CreateTopics",
        "DeleteTopics", "DeleteRecords", "InitProducerId", "OffsetForLeaderEpoch", "DescribeConfigs", "AlterConfigs",
        "IncrementalAlterConfigs", "DescribeLogDirs", "CreatePartitions", "DeleteGroups", "OffsetDelete",
        "DescribeCluster", "DescribeTopicPartitions", "ListPartitionReassignments", "ListConfigResources",
        "ConsumerGroupHeartbeat", "ConsumerGroupDescribe", "ShareGroupHeartbeat", "ShareGroupDescribe", "ShareFetch",
        "ShareAcknowledge", "DescribeShareGroupOffsets", "AlterShareGroupOffsets", "DeleteShareGroupOffsets"
    };
    static final String[] DATA = {
        "message.RequestHeaderData", "message.ResponseHeaderData", "message.ConsumerProtocolSubscription",
        "message.ConsumerProtocolAssignment"
    };
    static final String[] RECORDS = {
        "GroupMetadataKey", "GroupMetadataValue", "OffsetCommitKey", "OffsetCommitValue", "LegacyOffsetCommitKey",
        "LegacyOffsetCommitValue", "ConsumerGroupMetadataKey", "ConsumerGroupMetadataValue",
        "ConsumerGroupMemberMetadataKey", "ConsumerGroupMemberMetadataValue",
        "ConsumerGroupTargetAssignmentMetadataKey", "ConsumerGroupTargetAssignmentMetadataValue",
        "ConsumerGroupTargetAssignmentMemberKey", "ConsumerGroupTargetAssignmentMemberValue",
        "ConsumerGroupCurrentMemberAssignmentKey", "ConsumerGroupCurrentMemberAssignmentValue",
        "ConsumerGroupRegularExpressionKey", "ConsumerGroupRegularExpressionValue",
        "ShareGroupMemberMetadataKey", "ShareGroupMemberMetadataValue", "ShareGroupMetadataKey",
        "ShareGroupMetadataValue", "ShareGroupTargetAssignmentMetadataKey", "ShareGroupTargetAssignmentMetadataValue",
        "ShareGroupTargetAssignmentMemberKey", "ShareGroupTargetAssignmentMemberValue",
        "ShareGroupCurrentMemberAssignmentKey", "ShareGroupCurrentMemberAssignmentValue",
        "ShareGroupStatePartitionMetadataKey", "ShareGroupStatePartitionMetadataValue"
    };

    static Random random;

    public static void main(String[] args) throws Exception {
        System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8));
        for (String api : APIS) {
            for (String side : new String[] {"Request", "Response"}) {
                all(api + side, "org.apache.kafka.common.message." + api + side + "Data");
            }
        }
        for (String name : DATA) all(name.replaceAll("message\\.|Data$", ""), "org.apache.kafka.common." + name);
        for (String name : RECORDS) all(name, "org.apache.kafka.coordinator.group.generated." + name);
        System.out.flush();
    }

    static void all(String name, String className) throws Exception {
        Class<?> type = Class.forName(className);
        Schema[] schemas = (Schema[]) type.getField("SCHEMAS").get(null);
        short lowest = type.getField("LOWEST_SUPPORTED_VERSION").getShort(null);
        for (short version = lowest; version < schemas.length; version++) {
            for (boolean sparse : new boolean[] {false, true}) {
                random = new Random(name.hashCode() * 31L + version);
                Message message = (Message) type.getConstructor().newInstance();
                fill(message, schemas[version], sparse);
                ObjectSerializationCache cache = new ObjectSerializationCache();
                ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
                message.write(new ByteBufferAccessor(buffer), cache, version);
                buffer.flip();
                byte[] bytes = new byte[buffer.remaining()];
                buffer.duplicate().get(bytes);
                Message read = (Message) type.getConstructor().newInstance();
                read.read(new ByteBufferAccessor(buffer), version);
                if (buffer.hasRemaining()) throw new IllegalStateException(name + " " + version + " was not read to its end");
                StringBuilder json = new StringBuilder();
                print(read, json);
                System.out.println(name + "\t" + version + "\t" + base64(bytes) + "\t" + json);
            }
        }
    }

    // Filling: the schema of a version names the fields it has, in snake case.

    static void fill(Object target, Schema schema, boolean sparse) throws Exception {
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields) {
                for (var tagged : ((TaggedFields) field.def.type).fields().values()) {
                    set(target, tagged.name, tagged.type, sparse);
                }
            } else {
                set(target, field.def.name, field.def.type, sparse);
            }
        }
    }

    static void set(Object target, String snakeName, Type type, boolean sparse) throws Exception {
        Method setter = setter(target.getClass(), camel(snakeName));
        boolean nullable = type.isNullable();
        Class<?> parameter = setter.getParameterTypes()[0];
        boolean structures = type.isArray() && type.arrayElementType().get() instanceof Schema;
        if (sparse && (nullable || !structures)) {
            if (nullable && !parameter.isPrimitive()) setter.invoke(target, (Object) null);
            // Null is the default even where it cannot be written.
            if (!nullable && parameter == BaseRecords.class) setter.invoke(target, MemoryRecords.EMPTY);
            return;
        }
        Object value;
        if (parameter == boolean.class) {
            Field field = target.getClass().getDeclaredField(Character.toLowerCase(camel(snakeName).charAt(0)) + camel(snakeName).substring(1));
            field.setAccessible(true);
            value = !field.getBoolean(target);
        } else if (Collection.class.isAssignableFrom(parameter)) {
            value = collection(setter, parameter, type, sparse);
        } else if (Message.class.isAssignableFrom(parameter)) {
            value = parameter.getConstructor().newInstance();
            fill(value, (Schema) structOf(type), sparse);
        } else {
            value = scalar(parameter);
        }
        setter.invoke(target, value);
    }

    static Object structOf(Type type) throws Exception {
        if (type instanceof Schema) return type;
        for (Field field : type.getClass().getDeclaredFields()) {
            field.setAccessible(true);
            if (field.get(type) instanceof Schema) return field.get(type);
        }
        throw new IllegalStateException("no structure in " + type);
    }

    @SuppressWarnings("unchecked")
    static Object collection(Method setter, Class<?> parameter, Type type, boolean sparse) throws Exception {
        Collection<Object> values = parameter == List.class
            ? new ArrayList<>()
            : (Collection<Object>) parameter.getConstructor().newInstance();
        Class<?> element;
        if (parameter == List.class) {
            element = (Class<?>) ((ParameterizedType) setter.getGenericParameterTypes()[0]).getActualTypeArguments()[0];
        } else {
            element = (Class<?>) ((ParameterizedType) parameter.getGenericSuperclass()).getActualTypeArguments()[0];
        }
        int count = sparse ? 1 : 1 + random.nextInt(2);
        for (int i = 0; i < count; i++) {
            if (Message.class.isAssignableFrom(element)) {
                Object value = element.getConstructor().newInstance();
                fill(value, (Schema) structOf(type.arrayElementType().get()), sparse);
                values.add(value);
            } else {
                values.add(scalar(element));
            }
        }
        return values;
    }

    static Object scalar(Class<?> type) {
        if (type == byte.class || type == Byte.class) return (byte) (random.nextBoolean() ? -7 : 2 + random.nextInt(100));
        if (type == short.class || type == Short.class) return (short) (random.nextBoolean() ? -1234 : 2 + random.nextInt(30000));
        if (type == int.class || type == Integer.class) return random.nextBoolean() ? -2 - random.nextInt(1 << 30) : 2 + random.nextInt(1 << 30);
        if (type == long.class || type == Long.class) {
            long value = 2 + (random.nextLong() >>> (11 + random.nextInt(40)));
            return random.nextBoolean() ? -value : value;
        }
        if (type == String.class) return "näme-" + "x".repeat(random.nextInt(3)) + random.nextInt(1000);
        if (type == Uuid.class) return new Uuid(random.nextLong(), random.nextLong());
        byte[] bytes = new byte[1 + random.nextInt(12)];
        random.nextBytes(bytes);
        if (type == byte[].class) return bytes;
        if (type == ByteBuffer.class) return ByteBuffer.wrap(bytes);
        if (type == BaseRecords.class) return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes));
        throw new IllegalStateException("no value for " + type);
    }

    static Method setter(Class<?> type, String name) {
        String wanted = "set" + name;
        for (Method method : type.getMethods()) {
            if (method.getName().equalsIgnoreCase(wanted) && method.getParameterCount() == 1) return method;
        }
        throw new IllegalStateException(type + " has no " + wanted);
    }

    static String camel(String snake) {
        StringBuilder out = new StringBuilder();
        for (String word : snake.split("_")) {
            if (!word.isEmpty()) out.append(Character.toUpperCase(word.charAt(0))).append(word.substring(1));
        }
        return out.toString();
    }

    // Printing: the fields of a message's class, in their order, under their own names.

    static void print(Object value, StringBuilder out) throws Exception {
        if (value == null || value instanceof Boolean || value instanceof Number) out.append(value);
        else if (value instanceof String text) out.append('"').append(text).append('"');
        else if (value instanceof Uuid id) {
            out.append('"').append(new java.util.UUID(id.getMostSignificantBits(), id.getLeastSignificantBits())).append('"');
        } else if (value instanceof byte[] bytes) out.append("\"b:").append(base64(bytes)).append('"');
        else if (value instanceof ByteBuffer buffer) {
            byte[] bytes = new byte[buffer.remaining()];
            buffer.duplicate().get(bytes);
            print(bytes, out);
        } else if (value instanceof MemoryRecords records) print(records.buffer(), out);
        else if (value instanceof Collection<?> collection) {
            String separator = "[";
            for (Object element : collection) {
                out.append(separator);
                print(element, out);
                separator = ",";
            }
            out.append(collection.isEmpty() ? "[]" : "]");
        } else {
            String separator = "{";
            for (Field field : value.getClass().getDeclaredFields()) {
                if (Modifier.isStatic(field.getModifiers()) || field.getName().startsWith("_")) continue;
                if (field.getName().equals("next") || field.getName().equals("prev")) continue;
                // Of version 0, which no class reads any more.
                if (value instanceof ShareFetchRequestData.FetchPartition && field.getName().equals("partitionMaxBytes")) continue;
                field.setAccessible(true);
                out.append(separator).append('"').append(field.getName()).append("\":");
                print(field.get(value), out);
                separator = ",";
            }
            out.append(separator.equals("{") ? "{}" : "}");
        }
    }

    static String base64(byte[] bytes) {
        return Base64.getEncoder().withoutPadding().encodeToString(bytes);
    }
}

package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafka-go uses old versions: OffsetCommit 2, JoinGroup 2, Fetch 2 to 10.
var segments = []scenario{
	{"kafka-go-codecs", segmentCodecs},
	{"kafka-go-group", segmentGroup},
	{"kafka-go-admin", segmentAdmin},
}

func segmentCreate(bootstrap, topic string, partitions int) error {
	conn, err := kafka.Dial("tcp", bootstrap)
	if err != nil {
		return err
	}
	defer conn.Close()
	controller, err := conn.Controller()
	if err != nil {
		return err
	}
	leader, err := kafka.Dial("tcp", net.JoinHostPort(controller.Host, strconv.Itoa(controller.Port)))
	if err != nil {
		return err
	}
	defer leader.Close()
	return leader.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1})
}

func segmentWrite(bootstrap, topic string, first, count int, codec kafka.Compression, acks kafka.RequiredAcks) error {
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, Balancer: &kafka.Hash{}, Compression: codec, RequiredAcks: acks,
		BatchTimeout: 5 * time.Millisecond, AllowAutoTopicCreation: true,
	}
	defer writer.Close()
	var messages []kafka.Message
	for index := first; index < first+count; index++ {
		messages = append(messages, kafka.Message{
			Key: []byte(strconv.Itoa(index)), Value: []byte(strconv.Itoa(index)),
			Headers: []kafka.Header{{Key: "h", Value: []byte("v")}},
		})
	}
	return writer.WriteMessages(context.Background(), messages...)
}

func segmentCodecs(bootstrap string) error {
	topic := named("segment-codecs")
	if err := segmentCreate(bootstrap, topic, 1); err != nil {
		return err
	}
	count := 0
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		for _, acks := range []kafka.RequiredAcks{kafka.RequireAll, kafka.RequireOne, kafka.RequireNone} {
			if err := segmentWrite(bootstrap, topic, count, 100, codec, acks); err != nil {
				return fmt.Errorf("%v: %w", codec, err)
			}
			count += 100
		}
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, MaxWait: 200 * time.Millisecond})
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var values []string
	for len(values) < count {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return fmt.Errorf("after %d: %w", len(values), err)
		}
		values = append(values, string(message.Value))
	}
	if err := reader.SetOffsetAt(ctx, time.UnixMilli(1000)); err != nil {
		return err
	}
	message, err := reader.ReadMessage(ctx)
	if err != nil {
		return err
	}
	if err := equal(message.Offset, 0, "offset at a time"); err != nil {
		return err
	}
	return inOrder(values, count)
}

func segmentGroup(bootstrap string) error {
	topic := named("segment-group")
	if err := segmentCreate(bootstrap, topic, 3); err != nil {
		return err
	}
	if err := segmentWrite(bootstrap, topic, 0, 60, 0, kafka.RequireAll); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, part := range []int{25, 35} {
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{bootstrap}, GroupID: topic, Topic: topic, MaxWait: 200 * time.Millisecond,
			HeartbeatInterval: 200 * time.Millisecond, StartOffset: kafka.FirstOffset,
		})
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		for index := 0; index < part; index++ {
			message, err := reader.ReadMessage(ctx)
			if err != nil {
				cancel()
				return fmt.Errorf("after %d: %w", len(seen), err)
			}
			seen[string(message.Value)] = true
		}
		cancel()
		if err := reader.Close(); err != nil {
			return err
		}
	}
	return equal(len(seen), 60, "messages")
}

func segmentAdmin(bootstrap string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client := &kafka.Client{Addr: kafka.TCP(bootstrap)}
	topic := named("segment-admin")
	created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}}})
	if err != nil || created.Errors[topic] != nil {
		return fmt.Errorf("create: %v %v", err, created)
	}
	metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	if err := equal(len(metadata.Topics[0].Partitions), 2, "partitions"); err != nil {
		return err
	}
	if err := segmentWrite(bootstrap, topic, 0, 10, 0, kafka.RequireAll); err != nil {
		return err
	}
	offsets, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0), kafka.LastOffsetOf(1)}}})
	if err != nil {
		return err
	}
	sum := int64(0)
	for _, part := range offsets.Topics[topic] {
		sum += part.LastOffset
	}
	if err := equal(sum, 10, "end offsets"); err != nil {
		return err
	}
	if _, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}}}); err != nil {
		return err
	}
	if _, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{}); err != nil {
		return err
	}
	if _, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{named("segment-group")}}); err != nil {
		return err
	}
	if _, err := client.ApiVersions(ctx, &kafka.ApiVersionsRequest{}); err != nil {
		return err
	}
	deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return deleted.Errors[topic]
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// sarama asks for the versions that fit the Kafka version it is told; the oldest and the newest it knows are tried.
var saramas = []scenario{
	{"sarama-oldest", func(bootstrap string) error { return saramaAll(bootstrap, sarama.V0_11_0_0) }},
	{"sarama-default", func(bootstrap string) error { return saramaAll(bootstrap, sarama.DefaultVersion) }},
	{"sarama-newest", func(bootstrap string) error { return saramaAll(bootstrap, sarama.MaxVersion) }},
	{"sarama-group", saramaGroup},
	{"sarama-admin", saramaAdmin},
	{"sarama-too-large", saramaTooLarge},
}

func saramaConfig(version sarama.KafkaVersion) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = version
	config.Producer.Return.Successes = true
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 200 * time.Millisecond
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	return config
}

func saramaAll(bootstrap string, version sarama.KafkaVersion) error {
	topic := named("sarama-" + version.String())
	codecs := []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4}
	if version.IsAtLeast(sarama.V2_1_0_0) {
		codecs = append(codecs, sarama.CompressionZSTD)
	}
	count := 0
	for _, codec := range codecs {
		for _, idempotent := range []bool{false, true} {
			config := saramaConfig(version)
			config.Producer.Compression = codec
			config.Producer.RequiredAcks = sarama.WaitForAll
			config.Producer.Idempotent = idempotent
			if idempotent {
				config.Net.MaxOpenRequests = 1
			}
			producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
			if err != nil {
				return err
			}
			var messages []*sarama.ProducerMessage
			for index := 0; index < 100; index++ {
				messages = append(messages, &sarama.ProducerMessage{
					Topic: topic, Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder(strconv.Itoa(count)),
					Headers: []sarama.RecordHeader{{Key: []byte("h"), Value: []byte("v")}},
				})
				count++
			}
			err = producer.SendMessages(messages)
			producer.Close()
			if err != nil {
				return fmt.Errorf("%v idempotent %v: %w", codec, idempotent, err)
			}
		}
	}
	consumer, err := sarama.NewConsumer([]string{bootstrap}, saramaConfig(version))
	if err != nil {
		return err
	}
	defer consumer.Close()
	part, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer part.Close()
	var values []string
	for len(values) < count {
		select {
		case message := <-part.Messages():
			values = append(values, string(message.Value))
		case err := <-part.Errors():
			return err
		case <-time.After(10 * time.Second):
			return fmt.Errorf("%d of %d messages", len(values), count)
		}
	}
	if _, err := consumer.ConsumePartition(topic, 0, 100000); !errors.Is(err, sarama.ErrOffsetOutOfRange) {
		return fmt.Errorf("out of range: %v", err)
	}
	return inOrder(values, count)
}

type saramaHandler struct {
	mutex  sync.Mutex
	values map[string]bool
	wanted int
	done   context.CancelFunc
}

func (*saramaHandler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*saramaHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (handler *saramaHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		session.MarkMessage(message, "note")
		handler.mutex.Lock()
		handler.values[string(message.Value)] = true
		if len(handler.values) >= handler.wanted {
			handler.done()
		}
		handler.mutex.Unlock()
	}
	session.Commit()
	return nil
}

func saramaGroup(bootstrap string) error {
	topic := named("sarama-group")
	for _, version := range []sarama.KafkaVersion{sarama.V0_11_0_0, sarama.DefaultVersion, sarama.MaxVersion} {
		producer, err := sarama.NewSyncProducer([]string{bootstrap}, saramaConfig(version))
		if err != nil {
			return err
		}
		for index := 0; index < 50; index++ {
			message := &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(version.String() + strconv.Itoa(index))}
			if _, _, err := producer.SendMessage(message); err != nil {
				return err
			}
		}
		producer.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		handler := &saramaHandler{values: map[string]bool{}, wanted: 50, done: cancel}
		group, err := sarama.NewConsumerGroup([]string{bootstrap}, named("sarama-group"), saramaConfig(version))
		if err != nil {
			cancel()
			return err
		}
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{topic}, handler); err != nil {
				cancel()
				return err
			}
		}
		cancel()
		group.Close()
		// Each round reads only what the one before has not committed.
		if err := equal(len(handler.values), 50, version.String()); err != nil {
			return err
		}
	}
	return nil
}

func saramaAdmin(bootstrap string) error {
	// Apache Kafka 4 no longer serves what sarama's admin client sends for older versions.
	for _, version := range []sarama.KafkaVersion{sarama.V2_1_0_0, sarama.DefaultVersion, sarama.MaxVersion} {
		admin, err := sarama.NewClusterAdmin([]string{bootstrap}, saramaConfig(version))
		if err != nil {
			return err
		}
		topic := named("sarama-admin-" + version.String())
		retention := "12345"
		detail := &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &retention}}
		if err := admin.CreateTopic(topic, detail, false); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		if err := admin.CreateTopic(topic, detail, false); !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			return fmt.Errorf("created twice: %v", err)
		}
		if err := admin.CreatePartitions(topic, 3, nil, false); err != nil {
			return fmt.Errorf("partitions: %w", err)
		}
		topics, err := admin.ListTopics()
		if err != nil {
			return err
		}
		if err := equal(topics[topic].NumPartitions, 3, "partitions"); err != nil {
			return err
		}
		entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
		if err != nil {
			return err
		}
		if err := equal(entries[0].Value, retention, "retention.ms"); err != nil {
			return err
		}
		if err := admin.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &retention}, false); err != nil {
			return fmt.Errorf("alter: %w", err)
		}
		if _, _, err := admin.DescribeCluster(); err != nil {
			return err
		}
		if err := admin.DeleteRecords(topic, map[int32]int64{0: 0}); err != nil {
			return fmt.Errorf("delete records: %w", err)
		}
		if _, err := admin.ListConsumerGroups(); err != nil {
			return err
		}
		if _, err := admin.DescribeConsumerGroups([]string{named("sarama-group")}); err != nil {
			return err
		}
		if _, err := admin.ListConsumerGroupOffsets(named("sarama-group"), nil); err != nil {
			return err
		}
		if _, err := admin.DescribeLogDirs([]int32{1}); err != nil {
			return fmt.Errorf("log dirs: %w", err)
		}
		if err := admin.DeleteTopic(topic); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		admin.Close()
	}
	return nil
}

func saramaTooLarge(bootstrap string) error {
	config := saramaConfig(sarama.DefaultVersion)
	config.Producer.MaxMessageBytes = 8 << 20
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: named("sarama-large"), Value: sarama.ByteEncoder(make([]byte, 2<<20))})
	if !errors.Is(err, sarama.ErrMessageSizeTooLarge) {
		return fmt.Errorf("2 MiB: %v", err)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What a client has to do while its broker is killed and started again: send `carried` values one after the other, and
// read them in a group. `progress NAME COUNT` tells the test how far the reader is.
const carried = 1500

type carrier struct {
	name string
	// open answers how to send one value, and how to read until the context ends.
	open func(bootstrap, topic string) (send func(string) error, read func(context.Context, func(string)), close func(), err error)
}

var carriers = []carrier{{"franz-go-carries-on", franzCarry}, {"sarama-carries-on", saramaCarry}, {"kafka-go-carries-on", segmentCarry}}

func (one carrier) run(bootstrap string) error {
	topic := named(one.name)
	if err := segmentCreate(bootstrap, topic, 1); err != nil {
		return err
	}
	send, read, done, err := one.open(bootstrap, topic)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	var mutex sync.Mutex
	seen := map[string]int{}
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		read(ctx, func(value string) {
			mutex.Lock()
			defer mutex.Unlock()
			seen[value]++
			if seen[value] == 1 && len(seen)%100 == 0 {
				fmt.Printf("progress %s %d\n", one.name, len(seen))
			}
			if len(seen) == carried {
				cancel()
			}
		})
	}()
	for index := 0; index < carried && ctx.Err() == nil; index++ {
		for {
			err := send(strconv.Itoa(index))
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("sending %d: %w", index, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(2 * time.Millisecond)
	}
	<-reading
	mutex.Lock()
	defer mutex.Unlock()
	return equal(len(seen), carried, "values read")
}

func franzCarry(bootstrap, topic string) (func(string) error, func(context.Context, func(string)), func(), error) {
	client, err := franzClient(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(topic), kgo.DefaultProduceTopic(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))
	if err != nil {
		return nil, nil, nil, err
	}
	send := func(value string) error {
		return client.ProduceSync(context.Background(), kgo.StringRecord(value)).FirstErr()
	}
	read := func(ctx context.Context, visit func(string)) {
		for ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(record *kgo.Record) { visit(string(record.Value)) })
		}
	}
	return send, read, client.Close, nil
}

type saramaCarrier func(string)

func (saramaCarrier) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaCarrier) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (visit saramaCarrier) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		visit(string(message.Value))
		session.MarkMessage(message, "")
	}
	return nil
}

func saramaCarry(bootstrap, topic string) (func(string) error, func(context.Context, func(string)), func(), error) {
	config := saramaConfig(sarama.DefaultVersion)
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Consumer.Return.Errors = false
	config.Consumer.Retry.Backoff = 50 * time.Millisecond
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return nil, nil, nil, err
	}
	group, err := sarama.NewConsumerGroup([]string{bootstrap}, topic, config)
	if err != nil {
		return nil, nil, nil, err
	}
	send := func(value string) error {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
		return err
	}
	read := func(ctx context.Context, visit func(string)) {
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{topic}, saramaCarrier(visit)); err != nil {
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	return send, read, func() { producer.Close(); group.Close() }, nil
}

func segmentCarry(bootstrap, topic string) (func(string) error, func(context.Context, func(string)), func(), error) {
	writer := &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, GroupID: topic, Topic: topic, MaxWait: 200 * time.Millisecond,
		// It joins as a new member after a broken connection, which waits until the old one has timed out.
		SessionTimeout: 2 * time.Second, RebalanceTimeout: 2 * time.Second,
		HeartbeatInterval: 200 * time.Millisecond, StartOffset: kafka.FirstOffset, JoinGroupBackoff: 50 * time.Millisecond,
	})
	send := func(value string) error {
		return writer.WriteMessages(context.Background(), kafka.Message{Value: []byte(value)})
	}
	read := func(ctx context.Context, visit func(string)) {
		for {
			message, err := reader.FetchMessage(ctx)
			if err == nil {
				visit(string(message.Value))
				// ReadMessage would drop the message if this fails; read again it is only after the next rebalance.
				_ = reader.CommitMessages(ctx, message)
			} else if errors.Is(err, context.Canceled) || ctx.Err() != nil {
				return
			}
		}
	}
	return send, read, func() { writer.Close(); reader.Close() }, nil
}

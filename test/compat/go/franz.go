package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// franz-go takes the highest versions that the broker offers, and is idempotent by default.
var franz = []scenario{
	{"franz-go-codecs", franzCodecs},
	{"franz-go-group", franzGroup},
	{"franz-go-admin", franzAdmin},
	{"franz-go-share-group", franzShareGroup},
	{"franz-go-out-of-range", franzOutOfRange},
	{"franz-go-too-large", franzTooLarge},
	{"franz-go-topic-deleted", franzTopicDeleted},
}

func franzClient(bootstrap string, options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.AllowAutoTopicCreation(),
	}, options...)...)
}

func franzProduce(bootstrap, topic string, first, count int, options ...kgo.Opt) error {
	client, err := franzClient(bootstrap, append(options, kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for index := first; index < first+count; index++ {
		records = append(records, &kgo.Record{
			Key:     []byte("k" + strconv.Itoa(index%5)),
			Value:   []byte(strconv.Itoa(index)),
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}},
		})
	}
	return client.ProduceSync(context.Background(), records...).FirstErr()
}

// franzRead polls until it has `count` values.
func franzRead(client *kgo.Client, count int) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var values []string
	for len(values) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return values, fmt.Errorf("after %d: %w", len(values), err)
		}
		fetches.EachRecord(func(record *kgo.Record) { values = append(values, string(record.Value)) })
	}
	return values, nil
}

func franzCodecs(bootstrap string) error {
	topic := named("franz-codecs")
	codecs := []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}
	count := 0
	for _, codec := range codecs {
		for _, acks := range []kgo.Acks{kgo.AllISRAcks(), kgo.LeaderAck(), kgo.NoAck()} {
			options := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(acks)}
			if acks != kgo.AllISRAcks() {
				options = append(options, kgo.DisableIdempotentWrite())
			}
			if err := franzProduce(bootstrap, topic, count, 200, options...); err != nil {
				return err
			}
			count += 200
		}
	}
	client, err := franzClient(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	values, err := franzRead(client, count)
	if err != nil {
		return err
	}
	return inOrder(values, count)
}

func franzGroup(bootstrap string) error {
	topic, group := named("franz-group"), named("franz-group")
	admin, err := franzClient(bootstrap)
	if err != nil {
		return err
	}
	defer admin.Close()
	if _, err := kadm.NewClient(admin).CreateTopic(context.Background(), 4, 1, nil, topic); err != nil {
		return err
	}
	if err := franzProduce(bootstrap, topic, 0, 100); err != nil {
		return err
	}
	total := 0
	for _, balancer := range []kgo.GroupBalancer{kgo.RangeBalancer(), kgo.RoundRobinBalancer(), kgo.CooperativeStickyBalancer()} {
		name := group + balancer.ProtocolName()
		var members []*kgo.Client
		for index := 0; index < 2; index++ {
			member, err := franzClient(bootstrap, kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
				kgo.DisableAutoCommit(), kgo.HeartbeatInterval(100*time.Millisecond),
				kgo.InstanceID("instance-"+strconv.Itoa(index)))
			if err != nil {
				return err
			}
			defer member.Close()
			members = append(members, member)
		}
		seen := map[string]bool{}
		deadline := time.Now().Add(20 * time.Second)
		for turn := 0; len(seen) < 100; turn++ {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %d of 100 records", name, len(seen))
			}
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			fetches := members[turn%2].PollFetches(ctx)
			cancel()
			fetches.EachRecord(func(record *kgo.Record) { seen[string(record.Value)] = true })
			if err := members[turn%2].CommitUncommittedOffsets(context.Background()); err != nil &&
				!errors.Is(err, kerr.RebalanceInProgress) && !errors.Is(err, kerr.IllegalGeneration) {
				return err
			}
		}
		// Whoever has a partition now commits what it has read.
		offsets, err := kadm.NewClient(admin).FetchOffsets(context.Background(), name)
		if err != nil {
			return err
		}
		offsets.Each(func(offset kadm.OffsetResponse) { total += int(offset.At) })
	}
	if total == 0 {
		return errors.New("nothing was committed")
	}
	return nil
}

func franzAdmin(bootstrap string) error {
	ctx := context.Background()
	client, err := franzClient(bootstrap)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topic, group := named("franz-admin"), named("franz-admin")
	retention := "100000"
	if _, err := admin.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": &retention}, topic); err != nil {
		return err
	}
	if _, err := admin.CreateTopic(ctx, 2, 1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("created twice: %v", err)
	}
	if _, err := admin.UpdatePartitions(ctx, 3, topic); err != nil {
		return err
	}
	details, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	if err := equal(len(details[topic].Partitions), 3, "partitions"); err != nil {
		return err
	}
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	for _, config := range configs[0].Configs {
		if config.Key == "retention.ms" && config.MaybeValue() != retention {
			return fmt.Errorf("retention.ms is %s", config.MaybeValue())
		}
	}
	value := "5000"
	if _, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic); err != nil {
		return err
	}
	if _, err := admin.DescribeBrokerConfigs(ctx, 1); err != nil {
		return err
	}
	if err := franzProduce(bootstrap, topic, 0, 50); err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	sum := int64(0)
	ends.Each(func(offset kadm.ListedOffset) { sum += offset.Offset })
	if err := equal(sum, 50, "end offsets"); err != nil {
		return err
	}
	if _, err := admin.ListOffsetsAfterMilli(ctx, 1000, topic); err != nil {
		return err
	}
	if _, err := admin.ListStartOffsets(ctx, topic); err != nil {
		return err
	}
	if _, err := admin.DescribeAllLogDirs(ctx, nil); err != nil {
		return err
	}
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 1, LeaderEpoch: -1})
	if _, err := admin.CommitOffsets(ctx, group, offsets); err != nil {
		return err
	}
	fetched, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	offset, _ := fetched.Lookup(topic, 0)
	if err := equal(offset.At, 1, "committed"); err != nil {
		return err
	}
	lags, err := admin.Lag(ctx, group)
	if err != nil || lags.Error() != nil {
		return fmt.Errorf("lag: %v %v", err, lags.Error())
	}
	if _, err := admin.ListGroups(ctx); err != nil {
		return err
	}
	if _, err := admin.DeleteGroups(ctx, group); err != nil {
		return err
	}
	var upTo kadm.Offsets
	upTo.Add(kadm.Offset{Topic: topic, Partition: 0, At: 1})
	if _, err := admin.DeleteRecords(ctx, upTo); err != nil {
		return err
	}
	epochs := kadm.OffsetForLeaderEpochRequest{}
	epochs.Add(topic, 0, 0)
	if _, err := admin.OffsetForLeaderEpoch(ctx, epochs); err != nil {
		return err
	}
	if _, err := admin.ApiVersions(ctx); err != nil {
		return err
	}
	_, err = admin.DeleteTopics(ctx, topic)
	return err
}

func franzOutOfRange(bootstrap string) error {
	topic := named("franz-range")
	if err := franzProduce(bootstrap, topic, 0, 10); err != nil {
		return err
	}
	beyond := kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(1000)}})
	resetting, err := franzClient(bootstrap, beyond, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer resetting.Close()
	values, err := franzRead(resetting, 10)
	if err != nil {
		return err
	}
	if err := inOrder(values, 10); err != nil {
		return err
	}
	client, err := franzClient(bootstrap, beyond, kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := franzRead(client, 1); !errors.Is(err, kerr.OffsetOutOfRange) {
		return fmt.Errorf("without a reset policy: %v", err)
	}
	return nil
}

func franzTooLarge(bootstrap string) error {
	ctx := context.Background()
	client, err := franzClient(bootstrap, kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer client.Close()
	topic := named("franz-large")
	err = client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 2<<20)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		return fmt.Errorf("2 MiB: %v", err)
	}
	return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 1<<19)}).FirstErr()
}

func franzTopicDeleted(bootstrap string) error {
	ctx := context.Background()
	topic := named("franz-deleted")
	if err := franzProduce(bootstrap, topic, 0, 5); err != nil {
		return err
	}
	reader, err := franzClient(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		return err
	}
	defer reader.Close()
	if _, err := franzRead(reader, 5); err != nil {
		return err
	}
	if _, err := kadm.NewClient(reader).DeleteTopics(ctx, topic); err != nil {
		return err
	}
	// The reader may be told of it or not; other calls of the same client go on.
	short, cancel := context.WithTimeout(ctx, time.Second)
	reader.PollFetches(short)
	cancel()
	_, err = kadm.NewClient(reader).ListTopics(ctx)
	return err
}

// franzShareGroup has two members take a topic of compressed batches: everything once, but what is released twice and
// what is rejected never again; a renewed record stays with its member.
func franzShareGroup(bootstrap string) error {
	topic, group := named("franz-share"), named("franz-share-group")
	admin, err := franzClient(bootstrap)
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(admin).CreateTopic(ctx, 3, 1, nil, topic); err != nil {
		return err
	}
	earliest := "earliest"
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "share.auto.offset.reset", &earliest
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	resource.Configs = append(resource.Configs, config)
	alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
	alter.Resources = append(alter.Resources, resource)
	if _, err := alter.RequestWith(ctx, admin); err != nil {
		return err
	}
	const count = 300
	if err := franzProduce(bootstrap, topic, 0, count, kgo.ProducerBatchCompression(kgo.ZstdCompression())); err != nil {
		return err
	}
	failed := make(chan error, 100)
	callback := kgo.ShareAckCallback(func(_ *kgo.Client, results kgo.ShareAckResults) {
		if err := results.Error(); err != nil {
			failed <- err
		}
	})
	seen := map[int][]int32{}
	var members []*kgo.Client
	for range 2 {
		options := []kgo.Opt{kgo.ShareGroup(group), kgo.ConsumeTopics(topic), kgo.ShareMaxRecords(20), callback}
		member, err := franzClient(bootstrap, options...)
		if err != nil {
			return err
		}
		defer member.Close()
		members = append(members, member)
	}
	isDone := func() bool {
		for number := range count {
			expected := 1
			if number%10 == 0 {
				expected = 2
			}
			if len(seen[number]) < expected {
				return false
			}
		}
		return true
	}
	for turn := 0; !isDone() && ctx.Err() == nil; turn++ {
		member := members[turn%2]
		poll, cancelPoll := context.WithTimeout(ctx, 300*time.Millisecond)
		fetches := member.PollFetches(poll)
		cancelPoll()
		fetches.EachRecord(func(record *kgo.Record) {
			number, _ := strconv.Atoi(string(record.Value))
			seen[number] = append(seen[number], record.DeliveryCount())
			switch {
			case number%10 == 0 && len(seen[number]) == 1:
				record.Ack(kgo.AckRelease)
			case number%10 == 1:
				record.Ack(kgo.AckReject)
			case number%10 == 2:
				record.Ack(kgo.AckRenew)
				record.Ack(kgo.AckAccept)
			default:
				record.Ack(kgo.AckAccept)
			}
		})
	}
	for _, member := range members {
		if err := member.FlushAcks(ctx); err != nil {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	default:
	}
	for number := range count {
		expected := []int32{1}
		if number%10 == 0 {
			expected = []int32{1, 2}
		}
		if fmt.Sprint(seen[number]) != fmt.Sprint(expected) {
			return fmt.Errorf("record %d was delivered %v, not %v", number, seen[number], expected)
		}
	}
	return nil
}

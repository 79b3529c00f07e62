// Command compat runs the Go clients against a broker and prints a line for each scenario, as test/compat/scenarios.ts
// reads them: `ok NAME`, or `failed NAME "what was wrong"`.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

type scenario struct {
	name string
	run  func(bootstrap string) error
}

var run = strconv.FormatInt(time.Now().UnixMilli()%1e9, 36)

// named is a name of this run, so that it can be repeated on a broker that keeps its topics.
func named(name string) string { return name + "-" + run }

func main() {
	bootstrap := os.Args[1]
	if len(os.Args) > 2 && os.Args[2] == "carry-on" {
		// Side by side: all of them meet every kill.
		var all sync.WaitGroup
		for _, one := range carriers {
			all.Add(1)
			go func() {
				defer all.Done()
				report(scenario{one.name, one.run}, bootstrap)
			}()
		}
		all.Wait()
		return
	}
	for _, one := range append(append(franz, saramas...), segments...) {
		report(one, bootstrap)
	}
}

func report(one scenario, bootstrap string) {
	if err := guarded(one, bootstrap); err != nil {
		text, _ := json.Marshal(err.Error())
		fmt.Printf("failed %s %s\n", one.name, text)
	} else {
		fmt.Printf("ok %s\n", one.name)
	}
}

func guarded(one scenario, bootstrap string) (err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Errorf("panic: %v", thrown)
		}
	}()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if thrown := recover(); thrown != nil {
				done <- fmt.Errorf("panic: %v", thrown)
			}
		}()
		done <- one.run(bootstrap)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(60 * time.Second):
		return fmt.Errorf("did not end within 60 s")
	}
}

func equal[T comparable](found, expected T, what string) error {
	if found != expected {
		return fmt.Errorf("%s: found %v, expected %v", what, found, expected)
	}
	return nil
}

// inOrder checks that the values are 0, 1, 2 … in the order they were sent.
func inOrder(values []string, count int) error {
	if len(values) != count {
		return fmt.Errorf("found %d values, expected %d", len(values), count)
	}
	for index, value := range values {
		if value != strconv.Itoa(index) {
			return fmt.Errorf("value %d is %s", index, value)
		}
	}
	return nil
}

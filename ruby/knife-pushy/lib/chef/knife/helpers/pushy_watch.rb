# frozen_string_literal: true

class Chef
  class Knife
    # Waiting for a job, as `job start` and `job watch` do, and what Ctrl-C means meanwhile. Lines, texts and codes are
    # Pushy's.
    module PushyWatch
      # Gives a command the options of waiting.
      def self.options(command)
        command.option :poll_interval,
                       long: "--poll-interval SECONDS",
                       default: 1.0,
                       description: "Longest time between two looks at the job, on a server without event feeds, in seconds."
        command.option :lenient_exit,
                       long: "--lenient-exit",
                       boolean: true,
                       default: false,
                       description: "Exit as knife-push does: 0 also when nodes refused or were unavailable, else 1."
        command.option :detach_on_interrupt,
                       long: "--detach-on-interrupt",
                       boolean: true,
                       default: false,
                       description: "Do not ask at Ctrl-C: leave the job running."
      end

      private

      # Waits to the end of the job, shows it, and exits as it has ended.
      def watch(client, id, poll_interval, joined: false)
        outcome = follow(client, id, poll_interval: poll_interval, joined: joined)
        clear_line
        show_job(outcome.job)
        exit(config[:lenient_exit] ? outcome.lenient_exit_code : outcome.exit_code)
      rescue Pushy::Error => e
        clear_line
        ui.error(e.message)
        ui.info(look(id)) unless e.is_a?(Pushy::NotFoundError)
        unfinished(e.message, e.exit_code, id)
      end

      def follow(client, id, **options)
        client.wait(id, **options, **screen) { |kind, text| show(kind, text) }
      rescue Interrupt, SystemExit => e
        # knife's own handler exits with the same code.
        clear_line
        decide(client, id, e)
        options[:joined] = true
        retry
      end

      # Asks what Ctrl-C was for, where somebody can answer; a second one cancels the job, a third leaves.
      def decide(client, id, interrupt)
        leave(id, interrupt) if @cancelled || !can_ask?
        case answer
        when "d" then leave(id, interrupt)
        when "c", :again then cancel(client, id, interrupt)
        end
      end

      def can_ask?
        !config[:detach_on_interrupt] && ui.stdin.tty? && ui.stderr.tty?
      end

      def answer
        ui.stderr.print("\n", Pushy::INTERRUPT_QUESTION, " ")
        ui.stderr.flush
        ui.stdin.gets.to_s.strip.downcase
      rescue Interrupt, SystemExit
        ui.stderr.puts
        :again
      end

      def cancel(client, id, interrupt)
        @cancelled = true
        client.cancel_job(id)
        ui.info("Cancelling the job.")
      rescue Pushy::InvalidStateError
        nil # It has ended meanwhile, and the wait is about to say so.
      rescue Pushy::Error => e
        ui.error(e.message)
        leave(id, interrupt)
      end

      def leave(id, interrupt)
        ui.info("Interrupted. #{look(id)}")
        unfinished("interrupted; the job goes on", PushyBase::INTERRUPTED, id, interrupt)
      end

      def look(id)
        "The job goes on; look at it with: knife job status #{id}"
      end

      def unfinished(text, status, id, interrupt = nil)
        failure_document(text, status, "id" => id)
        raise interrupt if interrupt.is_a?(SystemExit)

        exit status
      end

      def show(kind, text)
        return rewrite(text) if kind == :progress

        clear_line
        kind == :notice ? ui.warn(text) : progress(text)
      end

      # The stream that a line is rewritten on: never that of a document.
      def progress_stream
        ui.interchange? ? ui.stderr : ui.stdout
      end

      def screen
        columns = columns_of(progress_stream)
        columns ? { columns: columns, color: ui.color? } : {}
      end

      def rewrite(text)
        @open_line = true
        progress_stream.print("\r", text, "\e[K")
        progress_stream.flush
      end

      def clear_line
        return unless @open_line

        @open_line = false
        progress_stream.print("\r\e[K")
        progress_stream.flush
      end
    end
  end
end
